package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
)

// progress shows how a job gets on: a bar with rate and time left on a terminal, a plain line every few seconds
// elsewhere. Who calls it owns it.
type progress struct {
	a       *app
	what    string
	unit    string // what is counted; empty: what jobs of the kind count
	began   time.Time
	base    int64 // what was done already when watching began, for the rate
	shown   time.Time
	drawn   bool // whether a bar stands on the terminal's line
	every   time.Duration
	started bool
}

func newProgress(a *app, what string) *progress {
	p := &progress{a: a, what: what, every: 3 * time.Second}
	if a.terminal {
		p.every = 100 * time.Millisecond
	}
	return p
}

// update shows a job's state, at most every so often.
func (p *progress) update(j api.Job) {
	now := time.Now()
	if !p.started {
		p.started, p.began, p.base = true, now, j.Done
	} else if now.Sub(p.shown) < p.every {
		return
	}
	p.shown = now
	line := p.line(j, now.Sub(p.began))
	if !p.a.terminal {
		p.a.note("%s", line)
		return
	}
	fmt.Fprintf(p.a.err, "\r\x1b[K%s", line)
	p.drawn = true
}

// end leaves the terminal's line behind, with the last state on it.
func (p *progress) end(j api.Job) {
	if p.started && p.a.terminal {
		p.shown = time.Time{}
		p.update(j)
	}
	if p.drawn {
		fmt.Fprintln(p.a.err)
		p.drawn = false
	}
}

// line is the state in one line: bar, counts, rate, time left.
func (p *progress) line(j api.Job, elapsed time.Duration) string {
	unit := p.unit
	if unit == "" {
		unit = unitOf(j.Kind)
	}
	rate := 0.0
	if elapsed > 0 {
		rate = float64(j.Done-p.base) / elapsed.Seconds()
	}
	parts := []string{p.what}
	if p.a.terminal && j.Total > 0 {
		parts = append(parts, bar(j.Done, j.Total, 24))
	}
	parts = append(parts, counts(j, unit))
	if rate >= 1 {
		parts = append(parts, grouped(int64(rate))+" "+unit+"/s")
		if left := j.Total - j.Done; left > 0 {
			parts = append(parts, "about "+remaining(float64(left)/rate)+" left")
		}
	}
	return strings.Join(parts, "  ")
}

// unitOf is what jobs of a kind count: rows, unless they are about keys.
func unitOf(kind string) string {
	switch kind {
	case "rotation-check", "rotation-run", "emergency-rotate", "incident-scope":
		return "keys"
	case "destroy-due":
		return "versions"
	}
	return "rows"
}

func counts(j api.Job, unit string) string {
	if j.Total <= 0 {
		return fmt.Sprintf("%s %s, %s", grouped(j.Done), unit, j.State)
	}
	return fmt.Sprintf("%s of %s %s (%d %%), %s", grouped(j.Done), grouped(j.Total), unit, percent(j.Done, j.Total), j.State)
}

func percent(done, total int64) int64 {
	return min(100, 100*done/max(total, 1))
}

func bar(done, total int64, width int) string {
	full := int(percent(done, total)) * width / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

func remaining(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	return max(d, time.Second).String()
}
