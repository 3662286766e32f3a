package soak

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/pgtest"
)

// TestAServerEndsWithoutItsDatabase: a node that is told to stop while its database swallows everything, or is gone, ends by
// itself within the patience of proctest; a supervisor that had to kill it would leave the shard to its lease.
func TestAServerEndsWithoutItsDatabase(t *testing.T) {
	for name, away := range map[string]func(*wired){
		"silent": func(w *wired) { w.wires[0].Hang() },
		"gone":   func(w *wired) { w.wires[0].Refuse(true); w.wires[0].Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			beside(t)
			w := newWired(t, 1, pgtest.Own(t, pgtest.Options{TCP: true}))
			w.Start()
			w.All[0].OK(nil, "key", "create", "phi", "--purpose", "phi")
			away(w)
			w.All[0].Stop()
			if said := w.All[0].Log(); !strings.Contains(said, "keyturn: ") || !strings.Contains(said, "next:  check that the database runs") {
				t.Errorf("it doesn't say what it couldn't do, and what to look at:\n%s", said)
			}
		})
	}
}
