package soak

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

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

// TestCampaignStopAtStart tells a server to stop at random moments of its start and just after it: each time it ends by itself,
// with status 0, and the next one starts.
func TestCampaignStopAtStart(t *testing.T) {
	beside(t)
	rng, seed := Seed(t)
	budget := NewBudget(t, 25)
	server := New(t).node("keyturn")
	t.Cleanup(server.Stop)
	stops, early := 0, 0
	for ; budget.More(stops); stops++ {
		server.spawn()
		<-time.After(time.Duration(rng.Int64N(250)) * time.Millisecond)
		server.Stop()
		var exit *exec.ExitError
		if errors.As(server.ending, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
			early++ // before it listened to signals, which is before it opened anything
			continue
		}
		if server.ending != nil {
			t.Fatalf("stop %d: %v\n%s", stops, server.ending, server.Log())
		}
	}
	server.Start()
	server.MustEnd()
	assertStore(t, server.Keyturn)
	left := strings.Count(server.Log(), "is left behind")
	Report("stop-at-start", seed, "%d stops at random moments of a start, %d before it listened to signals: all ended by themselves, %d after leaving the job queue behind", stops, early, left)
	if early == stops {
		t.Error("no server came as far as its start")
	}
}
