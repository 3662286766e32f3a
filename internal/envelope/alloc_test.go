//go:build !race

package envelope

import "testing"

// A message allocates what the primitives themselves allocate (the cipher and its mode) and nothing more, given room in
// dst. (Not under the race detector, where sync.Pool forgets on purpose.)
func TestAllocations(t *testing.T) {
	ctx, plain := testContext(t, "patient", "17"), make([]byte, 64)
	p, room := newPrimitives(ctx), make([]byte, 0, 300)
	floor := testing.AllocsPerRun(2000, func() { p.seal(room, plain) })
	for _, s := range []Suite{SuiteStandard, SuiteCompact} {
		k := testKey(t, s)
		blob := mustSeal(t, k, plain, ctx)
		for name, f := range map[string]func() error{
			"sealing": func() error { _, err := k.Seal(room, plain, ctx); return err },
			"opening": func() error { _, err := k.Open(room, blob, ctx); return err },
		} {
			got := testing.AllocsPerRun(2000, func() {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			})
			if got > floor {
				t.Errorf("%v, %s: %.0f allocations, the primitives alone make %.0f", s, name, got, floor)
			}
		}
		if got := testing.AllocsPerRun(2000, func() { _, _ = k.AppendDerived(room, "token", ctx, 32) }); got > 0 {
			t.Errorf("%v, deriving: %.0f allocations", s, got)
		}
	}
	pairs := []Pair{{"b", "2"}, {"a", "1"}}
	text := AppendText(nil, make([]byte, 180))
	for name, f := range map[string]func(){
		"context": func() { _, _ = AppendContext(room, pairs) },
		"text":    func() { AppendText(room, plain) },
		"decoded": func() { _, _ = AppendDecodedText(room, text) },
	} {
		if got := testing.AllocsPerRun(2000, f); got > 0 {
			t.Errorf("%s: %.0f allocations", name, got)
		}
	}
}
