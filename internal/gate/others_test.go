package gate

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
)

// Who holds a shard now is there, once; who gave it up, and the asker himself, aren't. On SQLite nobody else can be.
func TestOthers(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() store.Store) {
		first := start(t, open(), Config{Node: "first"})
		ask := func(want ...string) {
			t.Helper()
			got, err := first.Others(t.Context())
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		}
		ask()
		if !first.shared {
			return
		}
		b, twin, c := start(t, open(), Config{Node: "b"}), start(t, open(), Config{Node: "b"}), start(t, open(), Config{Node: "c"})
		ask("b", "c")
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := twin.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask("b")
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask()
	})
}
