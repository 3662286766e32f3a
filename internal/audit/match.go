package audit

import (
	"bytes"
	"time"
)

// Match says which events are wanted. A zero field doesn't restrict.
type Match struct {
	Since, Until   time.Time // Since <= time < Until
	Type           EventType
	Resource, User string // exactly
	Failed         bool   // only those without success
}

// Matcher finds wanted events among stored lines without decoding them: every wanted value is written once as it stands
// in a line, and compared byte by byte. Not safe for concurrent use.
type Matcher struct {
	since, until         []byte
	kind, resource, user []byte // between the quotes, escaped; nil = any
	failed               bool
	needles              [][]byte
	fields               fields
}

// NewMatcher prepares a Match.
func NewMatcher(m Match) *Matcher {
	x := &Matcher{failed: m.Failed}
	if !m.Since.IsZero() {
		x.since = AppendTime(nil, m.Since)
	}
	if !m.Until.IsZero() {
		x.until = AppendTime(nil, m.Until)
	}
	x.kind = x.needle(`"event_type":`, string(m.Type))
	x.resource = x.needle(`"resource":`, m.Resource)
	x.user = x.needle(`"user_id":`, m.User)
	return x
}

func (x *Matcher) needle(name, value string) []byte {
	if value == "" {
		return nil
	}
	text := appendString([]byte(name), value)
	x.needles = append(x.needles, text)
	return text[len(name)+1 : len(text)-1]
}

// MayMatch says whether some lines, joined, can hold a match: a quick look for every wanted value.
func (x *Matcher) MayMatch(lines []byte) bool {
	for _, n := range x.needles {
		if !bytes.Contains(lines, n) {
			return false
		}
	}
	return true
}

// Match says whether a stored line is wanted. A line that is not well formed always is: whoever reads the log must see it.
func (x *Matcher) Match(line []byte) bool {
	if scanLine(line, &x.fields) != "" {
		return true
	}
	f := &x.fields
	return (x.since == nil || bytes.Compare(f.time, x.since) >= 0) &&
		(x.until == nil || bytes.Compare(f.time, x.until) < 0) &&
		same(x.kind, f.kind) && same(x.resource, f.resource) && same(x.user, f.user) &&
		!(x.failed && f.success)
}

func same(want, got []byte) bool { return want == nil || bytes.Equal(want, got) }
