package jobs

import (
	"strings"
	"testing"
)

// The whole matrix, spelled out a second time on purpose: a change of the table must be made twice.
func TestTransitionMatrix(t *testing.T) {
	rows := []struct {
		from State
		to   string // one letter per state of States(): x = allowed
	}{
		//         q r p c f d
		{Queued, "_xxxx_"},
		{Running, "xxxxxx"},
		{Paused, "x__x__"},
		{Cancelled, "x_____"},
		{Failed, "x_____"},
		{Done, "x_____"},
		{"", "______"},
		{"Queued", "______"},
	}
	for _, row := range rows {
		for i, to := range States() {
			if want := row.to[i] == 'x'; row.from.MayBecome(to) != want {
				t.Errorf("%q -> %q: MayBecome = %v, want %v", row.from, to, !want, want)
			}
		}
		if row.from.MayBecome("") || row.from.MayBecome("gone") {
			t.Errorf("%q may become a state that doesn't exist", row.from)
		}
	}
}

func TestStatesKnowThemselves(t *testing.T) {
	final := map[State]bool{Cancelled: true, Failed: true, Done: true}
	for _, s := range States() {
		if !s.Valid() {
			t.Errorf("%q is listed and not valid", s)
		}
		if s.Final() != final[s] {
			t.Errorf("%q: Final = %v", s, s.Final())
		}
		if s != State(strings.ToLower(string(s))) {
			t.Errorf("%q: states are lower case on the wire", s)
		}
	}
	if len(States()) != len(transitions) {
		t.Errorf("%d states listed, %d in the table", len(States()), len(transitions))
	}
	if State("").Valid() || State("paused ").Valid() {
		t.Error("an unknown state passes for valid")
	}
}

func TestControlsAreClosed(t *testing.T) {
	for c, want := range map[Control]bool{Run: true, Pause: true, Cancel: true, "": false, "stop": false} {
		if c.Valid() != want {
			t.Errorf("%q: Valid = %v", c, !want)
		}
	}
}
