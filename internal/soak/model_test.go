package soak

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A key as its clients see it: a letter per version, in order. Rotating, disabling and compromising move letters; sealing
// answers which version was active, opening whether the version may open.
type keyState string

const (
	stateActive      byte = 'a'
	stateDeactivated byte = 'd'
	stateSuspended   byte = 's' // disabled although nothing was sealed under it any more: opens nothing either
	stateCompromised byte = 'c'
)

// asked is what a client asked of one key, and answered what it got.
type asked struct {
	key     string
	verb    string // rotate, disable, compromise, encrypt, decrypt
	version int    // which one; for rotate the ifVersion, 0 = any
}

type answered struct {
	version int  // that the answer names: the new one, or the one sealed under
	ok      bool // done; else refused by the key's state
	unknown bool // nobody knows whether it happened
}

func (s keyState) active() int { return strings.IndexByte(string(s), stateActive) + 1 }

func (s keyState) with(version int, state byte) keyState {
	b := []byte(s)
	b[version-1] = state
	return keyState(b)
}

// rotated is the state after a rotation.
func (s keyState) rotated() keyState {
	if n := s.active(); n > 0 {
		s = s.with(n, stateDeactivated)
	}
	return s + keyState([]byte{stateActive})
}

// apply is what the state becomes, and whether the operation is possible.
func (s keyState) apply(in asked) (keyState, bool) {
	n := in.version
	known := n >= 1 && n <= len(s)
	switch in.verb {
	case "rotate":
		return s.rotated(), n == 0 || s.active() == n
	case "disable":
		switch {
		case known && s[n-1] == stateActive:
			return s.with(n, stateDeactivated), true
		case known && s[n-1] == stateDeactivated:
			return s.with(n, stateSuspended), true
		}
		return s, false
	case "compromise":
		if !known || s[n-1] == stateCompromised {
			return s, false
		}
		if s[n-1] == stateActive {
			s = s.rotated()
		}
		return s.with(n, stateCompromised), true
	case "encrypt":
		return s, s.active() > 0
	}
	return s, known && s[n-1] != stateCompromised && s[n-1] != stateSuspended // decrypt, by somebody without the right to compromised versions
}

// keyModel says which answers a key that is one thing, whatever node is asked, can give.
var keyModel = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range history {
			by[op.Input.(asked).key] = append(by[op.Input.(asked).key], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range by {
			out = append(out, ops)
		}
		return out
	},
	Init:  func() []any { return []any{keyState("a")} },
	Equal: func(a, b any) bool { return a == b },
	Step: func(state, input, output any) []any {
		s, in, out := state.(keyState), input.(asked), output.(answered)
		next, possible := s.apply(in)
		switch {
		case out.unknown && possible && next != s:
			return []any{s, next}
		case out.unknown, !out.ok && !possible:
			return []any{s}
		case out.ok && possible && out.fits(s, next, in):
			return []any{next}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}).ToModel()

// fits says whether a success names the version that it must.
func (out answered) fits(before, after keyState, in asked) bool {
	switch in.verb {
	case "rotate":
		return out.version == len(after)
	case "encrypt":
		return out.version == before.active()
	}
	return true
}

// TestTheModelCanFail: histories that no single key could give are found, so that a good campaign means something.
func TestTheModelCanFail(t *testing.T) {
	op := func(client int, call, end int64, in asked, out answered) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: end}
	}
	rotated := op(0, 1, 2, asked{verb: "rotate"}, answered{version: 2, ok: true})
	for name, c := range map[string]struct {
		want    bool
		history []porcupine.Operation
	}{
		"sealed under the new one":              {true, []porcupine.Operation{rotated, op(1, 3, 4, asked{verb: "encrypt"}, answered{version: 2, ok: true})}},
		"sealed under the old one, afterwards":  {false, []porcupine.Operation{rotated, op(1, 3, 4, asked{verb: "encrypt"}, answered{version: 1, ok: true})}},
		"sealed under the old one, meanwhile":   {true, []porcupine.Operation{rotated, op(1, 1, 4, asked{verb: "encrypt"}, answered{version: 1, ok: true})}},
		"two rotations made the same version":   {false, []porcupine.Operation{rotated, op(1, 1, 4, asked{verb: "rotate"}, answered{version: 2, ok: true})}},
		"opened under a compromised version":    {false, []porcupine.Operation{op(0, 1, 2, asked{verb: "compromise", version: 1}, answered{ok: true}), op(1, 3, 4, asked{verb: "decrypt", version: 1}, answered{ok: true})}},
		"opened under one disabled twice":       {false, []porcupine.Operation{op(0, 1, 2, asked{verb: "disable", version: 1}, answered{ok: true}), op(0, 3, 4, asked{verb: "disable", version: 1}, answered{ok: true}), op(1, 5, 6, asked{verb: "decrypt", version: 1}, answered{ok: true})}},
		"a refusal that was never true":         {false, []porcupine.Operation{op(1, 3, 4, asked{verb: "encrypt"}, answered{})}},
		"an unknown rotation that happened":     {true, []porcupine.Operation{op(0, 1, 99, asked{verb: "rotate"}, answered{unknown: true}), op(1, 3, 4, asked{verb: "encrypt"}, answered{version: 2, ok: true})}},
		"an unknown rotation that did not":      {true, []porcupine.Operation{op(0, 1, 99, asked{verb: "rotate"}, answered{unknown: true}), op(1, 3, 4, asked{verb: "encrypt"}, answered{version: 1, ok: true})}},
		"an unknown rotation that came undone":  {false, []porcupine.Operation{op(0, 1, 99, asked{verb: "rotate"}, answered{unknown: true}), op(1, 3, 4, asked{verb: "encrypt"}, answered{version: 2, ok: true}), op(1, 5, 6, asked{verb: "encrypt"}, answered{version: 1, ok: true})}},
		"ifVersion that was not the active one": {false, []porcupine.Operation{rotated, op(1, 3, 4, asked{verb: "rotate", version: 1}, answered{version: 3, ok: true})}},
	} {
		if got := porcupine.CheckOperationsTimeout(keyModel, c.history, time.Minute) == porcupine.Ok; got != c.want {
			t.Errorf("%s: linearizable: %v", name, got)
		}
	}
}
