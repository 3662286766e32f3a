package keys

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"pgregory.net/rapid"
)

func TestRotate(t *testing.T) {
	k := newTestKey(t, Spec{Cryptoperiod: Cryptoperiod{Period: 90 * day}})
	later := testNow.Add(80 * day)
	moves, err := k.Rotate(later, "scheduler", "scheduled_rotation", 1)
	if err != nil {
		t.Fatal(err)
	}
	want := []Transition{
		{Version: 1, From: Active, To: Deactivated, At: stamp(later), Actor: "scheduler", Reason: "scheduled_rotation"},
		{Version: 2, From: "", To: Active, At: stamp(later), Actor: "scheduler", Reason: "scheduled_rotation"},
	}
	if !slices.Equal(moves, want) {
		t.Errorf("transitions %+v", moves)
	}
	v, ok := k.Active()
	if !ok || v.Number != 2 || v.Activated != stamp(later) || v.Created != stamp(later) || v.Expires != stamp(later).Add(90*day) || v.Seq != 1 {
		t.Errorf("new version %+v", v)
	}
	if old := k.Versions[0]; old.State != Deactivated || old.Seq != 2 || old.Expires != stamp(testNow).Add(90*day) {
		t.Errorf("old version %+v", old)
	}
}

func TestExpectNext(t *testing.T) {
	empty := Key{}
	one := newTestKey(t, Spec{})
	two := one.Clone()
	if _, err := two.Rotate(testNow, "", "", 0); err != nil {
		t.Fatal(err)
	}
	for n, k := range []*Key{&empty, &one, &two} {
		for asked := range uint32(6) {
			err := k.ExpectNext(asked)
			fits := asked == 0 || int(asked) == n+1
			if fits != (err == nil) || !fits && (fault.CodeOf(err) != api.CodeConflict || fault.FieldOf(err) != "version" || fault.NextOf(err) == "") {
				t.Errorf("version %d for a key with %d: %v", asked, n, err)
			}
		}
	}
}

func TestRotateIfVersion(t *testing.T) {
	k := newTestKey(t, Spec{})
	before := k.Clone()
	if _, err := k.Rotate(testNow, "", "", 2); fault.CodeOf(err) != api.CodeConflict {
		t.Errorf("rotating with a version that isn't active: %v", err)
	}
	sameKey(t, before, k)
	if _, err := k.Move(1, Suspended, testNow, "", "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(testNow, "", "", 1); fault.CodeOf(err) != api.CodeConflict {
		t.Errorf("rotating when none is active: %v", err)
	}
}

// A rotation ends no suspension and brings back nothing that was given up; whatever else took the active version away, it is
// the way back.
func TestRotateByState(t *testing.T) {
	type step struct {
		n  uint32
		to State
	}
	for name, c := range map[string]struct {
		versions int
		steps    []step
		next     string // of the refusal; empty: it is rotated
	}{
		"active":                         {1, nil, ""},
		"disabled":                       {1, []step{{1, Deactivated}}, ""},
		"disabled twice":                 {1, []step{{1, Deactivated}, {1, Suspended}}, ""},
		"compromised":                    {1, []step{{1, Compromised}}, ""},
		"suspended":                      {1, []step{{1, Suspended}}, "keyturn key resume phi"},
		"suspended, older ones open":     {2, []step{{2, Suspended}}, "keyturn key resume phi"},
		"suspended, older one held too":  {2, []step{{1, Suspended}, {2, Suspended}}, "keyturn key resume phi"},
		"suspended, then compromised":    {1, []step{{1, Suspended}, {1, Compromised}}, ""},
		"suspended, then disabled":       {1, []step{{1, Suspended}, {1, Deactivated}}, ""},
		"an older one is suspended":      {2, []step{{1, Suspended}}, ""},
		"the same, and disabled":         {2, []step{{1, Suspended}, {2, Deactivated}}, ""},
		"to be destroyed":                {1, []step{{1, Deactivated}, {1, DestroyScheduled}}, "keyturn key undestroy phi --version 1"},
		"destroyed":                      {1, []step{{1, Deactivated}, {1, DestroyScheduled}, {1, Destroyed}}, "keyturn key create"},
		"one destroyed, one to be":       {2, []step{{2, Deactivated}, {1, DestroyScheduled}, {1, Destroyed}, {2, DestroyScheduled}}, "keyturn key undestroy phi --version 2"},
		"one destroyed, one disabled":    {2, []step{{2, Deactivated}, {1, DestroyScheduled}, {1, Destroyed}}, ""},
		"one destroyed, one compromised": {2, []step{{2, Compromised}, {1, DestroyScheduled}, {1, Destroyed}}, ""},
		"one destroyed, one active":      {2, []step{{1, DestroyScheduled}, {1, Destroyed}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTestKey(t, Spec{})
			for range c.versions - 1 {
				if _, err := k.Rotate(testNow, "", "", 0); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range c.steps {
				if s.to == Destroyed {
					if _, err := k.Destroy(s.n, testNow.Add(30*day), "", ""); err != nil {
						t.Fatal(err)
					}
					continue
				}
				mustMove(t, &k, s.n, s.to, 0)
			}
			before := k.Clone()
			_, err := k.Rotate(testNow, "", "", 0)
			if c.next == "" {
				if v, ok := k.Active(); err != nil || !ok || int(v.Number) != c.versions+1 {
					t.Errorf("%v, %+v", err, k.Versions)
				}
				return
			}
			if fault.CodeOf(err) != api.CodeWrongState || fault.FieldOf(err) != "key" || !strings.Contains(fault.NextOf(err), c.next) {
				t.Errorf("%v, next %q", err, fault.NextOf(err))
			}
			sameKey(t, before, k)
			if _, err := k.Usable(testNow); fault.CodeOf(err) != api.CodeWrongState || !strings.Contains(fault.NextOf(err), c.next) {
				t.Errorf("who would seal is told %q", fault.NextOf(err))
			}
		})
	}
}

func TestDestroyWaits(t *testing.T) {
	k := newTestKey(t, Spec{})
	mustMove(t, &k, 1, Deactivated, 0)
	for _, days := range []int{-1, 1, 6, 31, 1 << 30} {
		if _, err := k.Move(1, DestroyScheduled, testNow, "", "", days); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "waitDays" {
			t.Errorf("waiting %d days: %v", days, err)
		}
	}
	mustMove(t, &k, 1, DestroyScheduled, 7)
	due := stamp(testNow).Add(7 * day)
	if got := k.Versions[0].DestroyAt; got != due {
		t.Fatalf("due at %v, want %v", got, due)
	}
	if _, err := k.Destroy(1, due.Add(-time.Microsecond), "", ""); fault.CodeOf(err) != api.CodeWrongState {
		t.Errorf("destroying a microsecond early: %v", err)
	}
	if k.Versions[0].Wrapped == nil {
		t.Fatal("a refused destruction dropped the material")
	}
	move, err := k.Destroy(1, due, "system", "due")
	if err != nil {
		t.Fatal(err)
	}
	v := k.Versions[0]
	if v.State != Destroyed || v.Wrapped != nil || v.KEK != "" || v.Destroyed != due || move.From != DestroyScheduled || move.To != Destroyed {
		t.Errorf("destroyed version %+v by %+v", v, move)
	}
	if _, err := k.Destroy(1, due, "", ""); fault.CodeOf(err) != api.CodeWrongState {
		t.Errorf("destroying twice: %v", err)
	}
}

func TestUndestroyGoesBackToThePriorState(t *testing.T) {
	for _, prior := range []State{Deactivated, Compromised} {
		k := newTestKey(t, Spec{})
		mustMove(t, &k, 1, prior, 0)
		mustMove(t, &k, 1, DestroyScheduled, 0)
		if got := k.Versions[0].PriorState; got != prior {
			t.Fatalf("prior state %q, want %q", got, prior)
		}
		mustMove(t, &k, 1, prior, 0)
		if v := k.Versions[0]; v.PriorState != "" || !v.DestroyAt.IsZero() || v.Seq != 4 {
			t.Errorf("after undestroy: %+v", v)
		}
	}
}

func mustMove(t testing.TB, k *Key, n uint32, to State, days int) {
	t.Helper()
	if _, err := k.Move(n, to, testNow, "tester", "test", days); err != nil {
		t.Fatalf("moving version %d to %s: %v", n, to, err)
	}
}

// TestLifeProperties runs random lives and checks after each step what must hold whatever happens: I2, I3 and I4 of the
// fault list.
func TestLifeProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k, err := NewKey(testID, Spec{Name: "life"}, testNow)
		if err != nil {
			rt.Fatal(err)
		}
		now := testNow
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, int(20*day)).Draw(rt, "wait")))
			before := k.Clone()
			moves, err := randomStep(rt, &k, now)
			checkStep(rt, before, k, moves, err)
			checkWayBack(rt, before, k, err)
		}
	})
}

func randomStep(rt *rapid.T, k *Key, now time.Time) ([]Transition, error) {
	n := uint32(rapid.IntRange(0, len(k.Versions)+1).Draw(rt, "version"))
	switch rapid.IntRange(0, 3).Draw(rt, "kind") {
	case 0:
		return k.Rotate(now, "a", "r", 0)
	case 1:
		move, err := k.Destroy(n, now, "a", "r")
		return []Transition{move}, err
	default:
		to := rapid.SampledFrom(States()).Draw(rt, "to")
		move, err := k.Move(n, to, now, "a", "r", rapid.IntRange(0, 31).Draw(rt, "days"))
		return []Transition{move}, err
	}
}

func checkStep(rt *rapid.T, before, after Key, moves []Transition, err error) {
	if err != nil {
		if len(before.Versions) != len(after.Versions) {
			rt.Fatal("a refused step added a version")
		}
		moves = nil
	}
	active := 0
	for i, v := range after.Versions {
		if v.Number != uint32(i+1) {
			rt.Fatalf("version numbers aren't dense: %d at place %d", v.Number, i)
		}
		if v.State == Active {
			active++
		}
		steps := countMoves(moves, v.Number)
		if i < len(before.Versions) {
			checkVersion(rt, before.Versions[i], v, steps)
		}
	}
	if active > 1 {
		rt.Fatalf("%d versions are active", active)
	}
	for _, m := range moves {
		if m.From != "" && !m.From.MayBecome(m.To) {
			rt.Fatalf("transition %s -> %s is not in the table", m.From, m.To)
		}
	}
}

// checkWayBack checks that a key gets a new version unless it is suspended or given up, and then never does.
func checkWayBack(rt *rapid.T, before, after Key, err error) {
	last, held := State(""), false
	gone := len(before.Versions) > 0
	for _, v := range before.Versions {
		gone = gone && (v.State == DestroyScheduled || v.State == Destroyed)
		if v.State == Active {
			last = Active
		}
		held = v.State == Suspended && v.PriorState != Deactivated // the last one; every version was active once
	}
	may := last == Active || !held && !gone
	next := before.Clone()
	if _, err := next.Rotate(testNow, "", "", 0); (err == nil) != may || err != nil && fault.CodeOf(err) != api.CodeWrongState {
		rt.Fatalf("rotating %+v: %v", before.Versions, err)
	}
	if !may && len(after.Versions) > len(before.Versions) {
		rt.Fatalf("a step (%v) gave a new version to %+v", err, before.Versions)
	}
}

func checkVersion(rt *rapid.T, before, after Version, steps int) {
	if after.Seq != before.Seq+uint32(steps) {
		rt.Fatalf("version %d: seq %d after %d by %d transitions", after.Number, after.Seq, before.Seq, steps)
	}
	if steps == 0 && after.State != before.State {
		rt.Fatalf("version %d changed from %s to %s without a transition", after.Number, before.State, after.State)
	}
	if before.State == Destroyed && (after.State != Destroyed || after.Wrapped != nil) {
		rt.Fatal("a destroyed version came back")
	}
}

func countMoves(moves []Transition, n uint32) (count int) {
	for _, m := range moves {
		if m.Version == n {
			count++
		}
	}
	return count
}

// A key whose row somebody took a version out of is refused as tampering, and nothing is numbered twice.
func TestRotateRefusesAGap(t *testing.T) {
	for name, keep := range map[string][]int{"the first is missing": {1, 2}, "one is missing": {0, 2}, "out of order": {1, 0, 2}, "twice": {0, 0, 1}} {
		whole := newTestKey(t, Spec{})
		for range 2 {
			if _, err := whole.Rotate(testNow, "ann", "", 0); err != nil {
				t.Fatal(err)
			}
		}
		k := whole
		k.Versions = nil
		for _, i := range keep {
			k.Versions = append(k.Versions, whole.Versions[i])
		}
		if moves, err := k.Rotate(testNow, "ann", "", 0); fault.CodeOf(err) != api.CodeIntegrity || moves != nil || len(k.Versions) != len(keep) {
			t.Errorf("%s: %v, %v", name, moves, err)
		}
		if _, ok := k.Version(uint32(keep[0]) + 1); ok && keep[0] != 0 {
			t.Errorf("%s: a version was found in another's place", name)
		}
	}
}
