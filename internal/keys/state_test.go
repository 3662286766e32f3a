package keys

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

var (
	testID  = envelope.KeyID{1, 2, 3}
	testNow = time.Date(2026, 1, 15, 10, 30, 45, 123456789, time.UTC)
)

// newTestKey is a key with one active version.
func newTestKey(t testing.TB, spec Spec) Key {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "phi"
	}
	k, err := NewKey(testID, spec, testNow)
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	if _, err := k.Rotate(testNow, "tester", "first", 0); err != nil {
		t.Fatalf("making the first version: %v", err)
	}
	k.Versions[0].Wrapped, k.Versions[0].KEK = []byte("sealed"), "kek"
	return k
}

// inState is a key whose only version stands in a state, reached from prior where the state has one.
func inState(t testing.TB, s, prior State) Key {
	t.Helper()
	k := newTestKey(t, Spec{})
	v := &k.Versions[0]
	v.State, v.PriorState = s, ""
	if s == DestroyScheduled {
		v.PriorState, v.DestroyAt = prior, testNow.Add(30*day)
	}
	return k
}

// allowed is the matrix, written out a second time and by hand: rows are from, columns to, in the order of States.
// "p" means only when that was the prior state; "d" means only through Destroy.
var allowed = map[State]string{
	//                 pre act sus dea com sch des
	PreActivation:    "-   x   -   -   x   -   -",
	Active:           "-   -   x   x   x   -   -",
	Suspended:        "-   x   -   x   x   -   -",
	Deactivated:      "-   -   x   -   x   x   -",
	Compromised:      "-   -   -   -   -   x   -",
	DestroyScheduled: "-   -   -   p   p   -   d",
	Destroyed:        "-   -   -   -   -   -   -",
}

func cell(from State, column int) byte { return allowed[from][4*column] }

func TestMoveMatrix(t *testing.T) {
	for _, from := range States() {
		for column, to := range States() {
			for _, prior := range []State{Deactivated, Compromised} {
				if from != DestroyScheduled && prior == Compromised {
					continue
				}
				t.Run(fmt.Sprintf("%s(%s)->%s", from, prior, to), func(t *testing.T) {
					want := cell(from, column) == 'x' || cell(from, column) == 'p' && prior == to
					checkMove(t, inState(t, from, prior), to, want)
				})
			}
		}
	}
}

func checkMove(t *testing.T, k Key, to State, want bool) {
	before := k.Clone()
	later := testNow.Add(time.Hour)
	move, err := k.Move(1, to, later, "officer", "because", 0)
	if !want {
		if fault.CodeOf(err) != api.CodeWrongState {
			t.Fatalf("got error %v, want wrong_state", err)
		}
		sameKey(t, before, k)
		return
	}
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	v, old := k.Versions[0], before.Versions[0]
	wantMove := Transition{Version: 1, From: old.State, To: to, At: stamp(later), Actor: "officer", Reason: "because"}
	if move != wantMove {
		t.Errorf("transition %+v, want %+v", move, wantMove)
	}
	if v.State != to || v.Seq != old.Seq+1 || v.Actor != "officer" || v.Reason != "because" {
		t.Errorf("version after the move: %+v", v)
	}
	scheduled := to == DestroyScheduled
	remembers := scheduled || to == Suspended && old.State == Deactivated
	if scheduled == v.DestroyAt.IsZero() || remembers == (v.PriorState == "") {
		t.Errorf("destroyAt %v and prior state %q of a version that became %s", v.DestroyAt, v.PriorState, to)
	}
}

// What was deactivated and then suspended opens again when it is resumed, and never protects again.
func TestSuspendedAfterDeactivation(t *testing.T) {
	k := inState(t, Deactivated, "")
	if _, err := k.Move(1, Suspended, testNow, "", "", 0); err != nil || k.Versions[0].PriorState != Deactivated {
		t.Fatalf("%+v, %v", k.Versions[0], err)
	}
	if _, err := k.Move(1, Active, testNow, "", "", 0); fault.CodeOf(err) != api.CodeWrongState {
		t.Errorf("becoming active again: %v", err)
	}
	for _, to := range []State{Deactivated, Compromised} {
		next := k.Clone()
		if _, err := next.Move(1, to, testNow, "", "", 0); err != nil || next.Versions[0].PriorState != "" {
			t.Errorf("to %s: %+v, %v", to, next.Versions[0], err)
		}
	}
}

func sameKey(t *testing.T, want, got Key) {
	t.Helper()
	if fmt.Sprintf("%+v", want) != fmt.Sprintf("%+v", got) {
		t.Errorf("a refused change left a trace:\nbefore %+v\nafter  %+v", want, got)
	}
}

func TestProtectAndProcessMatrix(t *testing.T) {
	for _, c := range []struct {
		state                                State
		protects, plain, policy, compromised bool
	}{
		{PreActivation, false, false, false, false},
		{Active, true, true, true, true},
		{Suspended, false, false, true, false},
		{Deactivated, false, true, true, true},
		{Compromised, false, false, false, true},
		{DestroyScheduled, false, false, false, false},
		{Destroyed, false, false, false, false},
	} {
		k := inState(t, c.state, Deactivated)
		lenient := k.Clone()
		lenient.SuspendedDecrypts = true
		if got := c.state.Protects(); got != c.protects {
			t.Errorf("%s protects: %v", c.state, got)
		}
		for _, q := range []struct {
			k           Key
			compromised bool
			want        bool
		}{{k, false, c.plain}, {lenient, false, c.policy}, {k, true, c.compromised}} {
			_, err := q.k.MayProcess(1, q.compromised)
			if (err == nil) != q.want {
				t.Errorf("%s processes (suspendedDecrypts %v, compromised allowed %v): %v", c.state, q.k.SuspendedDecrypts, q.compromised, err)
			}
		}
		_, err := k.MayProtect(testNow)
		if (err == nil) != c.protects || err != nil && fault.CodeOf(err) != api.CodeWrongState {
			t.Errorf("%s may protect: %v", c.state, err)
		}
	}
}

func TestMayProcessNamesTheReason(t *testing.T) {
	k := inState(t, Compromised, "")
	if _, err := k.MayProcess(1, false); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("compromised without the permission: %v", err)
	}
	for _, n := range []uint32{0, 2, 1 << 31} {
		if _, err := k.MayProcess(n, true); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("version %d that never was: %v", n, err)
		}
	}
	if _, err := inState(t, Destroyed, "").MayProcess(1, true); fault.CodeOf(err) != api.CodeWrongState {
		t.Errorf("destroyed: %v", err)
	}
}

func TestUnknownStateIsNothing(t *testing.T) {
	for _, s := range []State{"", "Active", "ACTIVE", " active", "active ", "аctive", "unknown"} {
		k := inState(t, Active, "")
		if s.Valid() || s.Protects() || s.Processes(k, true) || s.MayBecome(Active) || Active.MayBecome(s) {
			t.Errorf("%q is taken for a state", s)
		}
		if _, err := k.Move(1, s, testNow, "", "", 0); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("moving to %q: %v", s, err)
		}
	}
}
