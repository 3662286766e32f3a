package kms

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/store"
)

const day = 24 * time.Hour

// clockJumps are what happens to clocks, in the direction that they go.
var clockJumps = []struct {
	what string
	by   time.Duration
}{
	{"a step of NTP", -time.Second}, {"a step of NTP", time.Second}, {"a leap second shown twice", -time.Second}, {"a leap second left out", time.Second},
	{"just not worth a word", -59 * time.Second}, {"just not worth a word", 59 * time.Second}, {"just worth a word", -61 * time.Second}, {"just worth a word", 61 * time.Second},
	{"skew of a node", -5 * time.Minute}, {"skew of a node", 5 * time.Minute},
	{"daylight saving taken for time", -time.Hour}, {"daylight saving taken for time", time.Hour},
	{"local time taken for UTC", -13 * time.Hour}, {"local time taken for UTC", 14 * time.Hour},
	{"a leap day forgotten", -day}, {"a leap day made up", day}, {"a week", -7 * day}, {"the shortest waiting time", 7 * day}, {"and a second", 7*day + time.Second},
	{"a month", -30 * day}, {"the longest waiting time", 30 * day}, {"a cryptoperiod", -90 * day}, {"a cryptoperiod", 90 * day},
	{"a leap year", -366 * day}, {"a leap year", 366 * day}, {"a year mistyped", -365 * day}, {"a year mistyped", 365 * day},
	{"ten years", -3653 * day}, {"ten years", 3653 * day}, {"an empty battery", -20 * 365 * day},
}

// clockWatch checks, after every step, what must hold whatever clocks do.
type clockWatch struct {
	h       *house
	waiting time.Duration // of version 1 of phi
	since   time.Duration // when that was scheduled, in time that really passed
	expired []string      // tokens that were seen expired
	overdue bool          // key short was seen overdue
	last    time.Time
}

// tokenEnds are when the tokens of a clockWatch end.
var tokenEnds = []time.Duration{30 * time.Second, 30 * time.Minute, 12 * time.Hour, 5 * day, 200 * day, 4000 * day}

func (w *clockWatch) step(during string) {
	w.h.t.Helper()
	t, now := w.h.t, w.h.time.Now()
	if now.Before(w.last) {
		t.Errorf("%s: %v after %v", during, now, w.last)
	}
	w.last = now
	n, err := w.h.svc.RunDue(t.Context())
	if err != nil && (fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(fault.NextOf(err), "--accept-clock")) {
		t.Errorf("%s: %v", during, err)
	}
	if passed := w.h.clock.Elapsed() - w.since; n > 0 && passed < w.waiting {
		t.Errorf("%s: destroyed after %v of %v", during, passed, w.waiting)
	}
	for _, ends := range tokenEnds {
		name := fmt.Sprint("token of ", ends)
		usable := now.Before(w.h.clock.begin.Add(ends))
		for _, gone := range w.expired {
			if gone == name && usable {
				t.Errorf("%s: %s is valid again", during, name)
			}
		}
		if !usable {
			w.expired = append(w.expired, name)
		}

	}
	k := w.h.stored("short")
	rules, err := w.h.svc.Rules(t.Context())
	w.h.must(err)
	overdue := rules.Times(&k).Overdue(now)
	if w.overdue && !overdue {
		t.Errorf("%s: the cryptoperiod that had elapsed hasn't any more", during)
	}
	w.overdue = overdue
}

// pass lets time pass as it does under a server, which looks at the clock from time to time.
func (w *clockWatch) pass(d time.Duration, during string) {
	w.h.t.Helper()
	for range 4 {
		w.h.clock.Add(d / 4)
		w.h.must(w.h.svc.WatchClock(w.h.t.Context()))
	}
	w.step(during)
}

func (w *clockWatch) restart() {
	w.h.t.Helper()
	ctx := w.h.t.Context()
	w.h.must(w.h.svc.Close(ctx))
	w.h.must(w.h.gate.Close(ctx))
	w.h.build(options{})
	w.step("restart")
}

func (h *house) rollbacks() (n int) {
	for _, e := range h.events() {
		if e.Action == AlertRollback && e.Type == "alert" {
			n++
		}
	}
	return n
}

func scheduleFirst(h *house, days int) *clockWatch {
	h.t.Helper()
	destroyable(h)
	h.create(api.CreateKeyRequest{Name: "short", Period: "6d"})
	_, err := h.svc.Destroy(h.t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: days})
	h.must(err)
	return &clockWatch{h: h, waiting: time.Duration(days) * day, since: h.clock.Elapsed()}
}

// Whatever the clock does, in either direction and there and back, before and after a restart: nothing is destroyed early,
// what expired stays so, each jump back is one alert, and once the clock is right, or accepted, the destruction happens.
func TestClockJumps(t *testing.T) {
	tried := 0
	for _, jump := range clockJumps {
		for _, restart := range []bool{false, true} {
			tried++
			t.Run(fmt.Sprintf("%s %v restart %v", jump.what, jump.by, restart), func(t *testing.T) {
				t.Parallel() // what takes time is the disk
				h := newHouse(t, options{})
				w := scheduleFirst(h, 7)
				w.pass(2*day, "before")
				h.clock.Jump(jump.by, 0)
				w.step("the jump")
				if restart {
					w.restart()
				}
				w.pass(time.Hour, "after the jump")
				w.step("again")
				h.clock.Jump(-jump.by, 0)
				w.step("set right")
				if restart {
					w.restart()
				}
				w.pass(10*time.Minute, "after it was set right")
				want := 0
				if jump.by.Abs() > clock.Slack {
					want = 1
				}
				if got := h.rollbacks(); got != want {
					t.Errorf("%d alerts", got)
				}
				if jump.by > 12*time.Minute { // what was seen of the time that was wrong
					if got := h.complaint("clock", false); !strings.Contains(got, "before the latest time that was seen") {
						t.Error(got)
					}
					if h.time.Behind() < jump.by*8/10 {
						t.Errorf("only %v behind", h.time.Behind())
					}
				}
				w.h.must(h.svc.AcceptClock(t.Context(), "it was mistyped"))
				if behind := h.time.Behind(); behind > clock.Slack {
					t.Errorf("%v behind after it was accepted", behind)
				}
				w.expired, w.overdue, w.last = nil, false, time.Time{} // that was somebody's decision
				w.pass(5*day-time.Hour-11*time.Minute, "a minute before the end of the waiting time")
				if v := h.stored("phi").Versions[0]; v.State != keys.DestroyScheduled {
					t.Fatalf("the version is %s", v.State)
				}
				w.pass(10*time.Minute, "after the waiting time")
				if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed {
					t.Errorf("after the waiting time the version is %s", v.State)
				}
				if got := h.rollbacks(); got != want {
					t.Errorf("%d alerts in the end", got)
				}
			})
		}
	}
	t.Logf("clock: %d cases", tried)
}

// With a database there are two clocks. Neither alone, nor both, get a version destroyed early; a node that is five minutes
// off says so and keeps no other from its work.
func TestClockJumpsWithADatabase(t *testing.T) {
	jumps := []time.Duration{-3653 * day, -61 * time.Second, -time.Second, 5 * time.Minute, 7*day + time.Second, 3653 * day}
	which := []struct {
		name    string
		own, db time.Duration
	}{{"node", 1, 0}, {"database", 0, 1}, {"both", 1, 1}}
	for _, jump := range jumps {
		for _, c := range which {
			t.Run(fmt.Sprintf("%s %v", c.name, jump), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
				w := scheduleFirst(h, 7)
				w.pass(2*day, "before")
				h.clock.Jump(c.own*jump, c.db*jump)
				w.step("the jump")
				w.pass(time.Hour, "after the jump")
				w.restart()
				h.clock.Jump(-c.own*jump, -c.db*jump)
				w.step("set right")
				w.pass(10*time.Minute, "after it was set right")
				if got, some := h.rollbacks(), jump.Abs() > clock.Slack; got > 3 || some && got == 0 && c.name != "node" || !some && got > 0 {
					t.Errorf("%d alerts", got)
				}
				h.must(h.svc.AcceptClock(t.Context(), "it was mistyped"))
				w.expired, w.overdue, w.last = nil, false, time.Time{}
				w.pass(5*day-time.Hour-11*time.Minute, "a minute before the end of the waiting time")
				if v := h.stored("phi").Versions[0]; v.State != keys.DestroyScheduled {
					t.Fatalf("the version is %s", v.State)
				}
				w.pass(10*time.Minute, "after the waiting time")
				if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed {
					t.Errorf("after the waiting time the version is %s", v.State)
				}
			})
		}
	}
}

// Time in which nobody ran doesn't count, however long: what fell due meanwhile is destroyed when keyturn has run for the rest
// of its waiting time, and doctor says how long that is.
func TestNobodyRanMeanwhile(t *testing.T) {
	h := newHouse(t, options{})
	w := scheduleFirst(h, 7)
	w.pass(3*day, "running")
	h.must(h.svc.Close(t.Context()))
	h.must(h.gate.Close(t.Context()))
	h.clock.Add(40 * day)
	h.build(options{})
	for range 4 { // however often it is started
		w.restart()
	}
	d, err := h.svc.Doctor(t.Context(), owner())
	h.must(err)
	if c := check(d, "destruction"); !c.OK || !strings.Contains(c.Detail, "96h0m0s at most: phi version 1") {
		t.Errorf("%+v", c)
	}
	h.must(h.svc.WatchClock(t.Context()))
	w.pass(4*day-time.Second, "running again")
	if v := h.stored("phi").Versions[0]; v.State != keys.DestroyScheduled {
		t.Errorf("a second before its end the version is %s", v.State)
	}
	w.pass(4*time.Second, "the rest")
	if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed {
		t.Errorf("after its end the version is %s", v.State)
	}
}

// Many nodes that run at the same time don't make time pass faster, and one that was there before a destruction was scheduled
// doesn't count what passed before.
func TestManyNodesWatchOneTime(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	nodes := []*Service{h.svc, h.node("b"), h.node("c")}
	for _, n := range nodes {
		h.must(n.WatchClock(t.Context()))
	}
	h.clock.Add(20 * day) // c watches, and nobody hears of it before the destruction is scheduled on a
	w := scheduleFirst(h, 7)
	h.clock.Jump(30*day, 30*day)
	for passed := time.Duration(0); passed < 7*day-time.Hour; passed += 6 * time.Hour {
		for _, n := range nodes {
			if done, err := n.RunDue(t.Context()); done != 0 || err != nil {
				t.Fatalf("%d destroyed after %v: %v", done, h.clock.Elapsed()-w.since, err)
			}
		}
		h.clock.Add(6 * time.Hour)
	}
	destroyed := 0
	for _, n := range nodes {
		done, err := n.RunDue(t.Context())
		h.must(err)
		destroyed += done
	}
	if destroyed != 1 {
		t.Errorf("%d destroyed in the end", destroyed)
	}
}

// A version that is undestroyed and scheduled once more waits once more. One that a release scheduled which wrote no such
// thing down waits for the shortest time.
func TestWaitsAnew(t *testing.T) {
	h := newHouse(t, options{})
	w := scheduleFirst(h, 7)
	w.pass(6*day, "the first time")
	_, err := h.svc.Undestroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	h.must(err)
	_, err = h.svc.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 8})
	h.must(err)
	w.waiting, w.since = 8*day, h.clock.Elapsed()
	h.clock.Jump(10*day, 0)
	w.pass(2*day, "the second time")
	h.forge(`DELETE FROM meta WHERE name LIKE 'destroy/%'`)
	w.waiting, w.since = 7*day, h.clock.Elapsed()
	w.step("as an older release left it")
	w.pass(7*day-time.Second, "a second before its end")
	w.pass(4*time.Second, "its end")
	if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed {
		t.Errorf("the version is %s", v.State)
	}
}

// A version that was made while the clock was ahead protects nothing once that is put right; it is overdue, and its follower protects.
func TestVersionsOfTheFuture(t *testing.T) {
	h := newHouse(t, options{})
	h.clock.Jump(3653*day, 0)
	for _, period := range []string{"90d", "0"} {
		h.create(api.CreateKeyRequest{Name: "future" + period, Period: period})
	}
	h.clock.Jump(-3653*day, 0)
	h.must(h.svc.AcceptClock(t.Context(), "it was mistyped"))
	if e := h.lastEvent(); e.Action != "clock_accepted" || e.User != "system" {
		t.Errorf("%s", e.raw)
	}
	for _, name := range []string{"future90d", "future0"} {
		_, err := h.tryEncrypt(name, "x", nil)
		wants(t, err, api.CodeUnavailable)
		if next := fault.NextOf(err); !strings.Contains(next, "keyturn key rotate "+name) {
			t.Error(next)
		}
		k := h.stored(name)
		rules, err := h.svc.Rules(t.Context())
		h.must(err)
		if !rules.Times(&k).Overdue(h.time.Now()) {
			t.Errorf("%s isn't overdue", name)
		}
		_, err = h.svc.Rotate(t.Context(), owner(), name, api.RotateKeyRequest{})
		h.must(err)
		h.opens(name, h.encrypt(name, "x", nil), "x", nil, 2)
	}
	if d, err := h.svc.Doctor(t.Context(), owner()); err != nil || !check(d, "clock").OK {
		t.Errorf("%+v %v", check(d, "clock"), err)
	}
	n := len(h.events())
	h.must(h.svc.AcceptClock(t.Context(), "it was mistyped"))
	if len(h.events()) != n {
		t.Error("a clock that is right was accepted once more")
	}
}

// A restart finds what was seen before it also when nobody wrote it down but the audit log.
func TestTheLogRemembersTime(t *testing.T) {
	h := newHouse(t, options{})
	w := &clockWatch{h: h}
	h.create(api.CreateKeyRequest{Name: "short", Period: "6d"})
	w.pass(time.Hour, "running")
	h.clock.Add(5 * time.Hour)
	h.create(api.CreateKeyRequest{Name: "other"}) // nobody looked at the clock since
	h.clock.Jump(-4*time.Hour, 0)
	w.restart()
	if behind := h.time.Behind(); behind != 4*time.Hour {
		t.Errorf("%v behind", behind)
	}
	if n := h.rollbacks(); n != 1 {
		t.Errorf("%d alerts", n)
	}
	w.restart()
	if n := h.rollbacks(); n != 1 {
		t.Errorf("%d alerts after one more start", n)
	}
	h.clock.Jump(4*time.Hour, 0)
	w.pass(time.Minute, "right again")
	h.clock.Jump(-4*time.Hour, 0)
	w.pass(time.Minute, "once more")
	if n := h.rollbacks(); n != 2 {
		t.Errorf("%d alerts after two jumps", n)
	}
}

// A clock that was accepted on one node is accepted on all, and jobs that were to go on in that future go on.
func TestAcceptedOnEveryNode(t *testing.T) {
	h := newHouse(t, options{url: pgtest.Start(t).Database(t)})
	other := h.node("other")
	h.must(h.svc.WatchClock(t.Context()))
	h.must(other.WatchClock(t.Context()))
	h.clock.Jump(0, 3653*day)
	h.must(other.WatchClock(t.Context()))
	put := func(tx store.Tx, state jobs.State) error {
		id, err := jobs.NewID(h.clock.Now(), rand.Reader)
		h.must(err)
		j, err := jobs.New(id, jobs.Job{Kind: "x", Subject: string(state), Actor: "system"}, h.clock.Database())
		h.must(err)
		j, _, err = tx.InsertJob(t.Context(), j)
		if err != nil || state != jobs.Running {
			return err
		}
		j.State, j.Owner, j.LeaseUntil = state, "dead", h.clock.Database().Add(time.Minute)
		_, err = tx.Save(t.Context(), j)
		return err
	}
	for _, state := range []jobs.State{jobs.Queued, jobs.Running} {
		h.must(h.st.Change(t.Context(), func(tx store.Tx) error { return put(tx, state) }))
	}
	h.clock.Jump(0, -3653*day)
	h.must(h.svc.AcceptClock(t.Context(), "it was mistyped"))
	h.must(other.WatchClock(t.Context()))
	for name, svc := range map[string]*Service{"here": h.svc, "there": other} {
		if now := svc.clock(); now.After(h.clock.Now().Add(time.Minute)) {
			t.Errorf("%s it is %v", name, now)
		}
	}
	h.clock.Add(time.Minute)
	h.must(other.WatchClock(t.Context()))
	h.must(h.svc.WatchClock(t.Context()))
	if n := h.rollbacks(); n > 3 { // both nodes and the database, before it was accepted
		t.Errorf("%d alerts", n)
	}
	h.must(h.st.View(t.Context(), func(tx store.Tx) error {
		stale, err := tx.Stale(t.Context(), h.clock.Database(), 10)
		if len(stale) != 2 {
			t.Errorf("%d of 2 jobs go on", len(stale))
		}
		return err
	}))
}
