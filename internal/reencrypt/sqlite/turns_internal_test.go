package sqlite

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns: after a transaction the file is free for a quarter of the time that it was held, for all of it when somebody
// else has written lately, for no more than maxTurn, and time that passed anyway counts.
func TestTurns(t *testing.T) {
	for name, c := range map[string]struct {
		held, passed time.Duration
		company      time.Duration // since others wrote; 0 = never
		want         time.Duration
	}{
		"first":           {0, 0, 0, 0},
		"alone":           {20 * time.Millisecond, 0, 0, 5 * time.Millisecond},
		"together":        {20 * time.Millisecond, 0, time.Millisecond, 20 * time.Millisecond},
		"not any more":    {20 * time.Millisecond, 0, time.Minute, 5 * time.Millisecond},
		"partly passed":   {20 * time.Millisecond, 2 * time.Millisecond, 0, 3 * time.Millisecond},
		"passed":          {20 * time.Millisecond, time.Second, 0, 0},
		"long held":       {time.Minute, 0, time.Millisecond, maxTurn},
		"long held alone": {time.Minute, 0, 0, maxTurn},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var turns turns
				turns.saw(7)
				if c.company > 0 {
					turns.saw(8)
					time.Sleep(c.company)
				}
				if c.held > 0 {
					turns.since, turns.held = time.Now(), c.held
				}
				time.Sleep(c.passed)
				begin := time.Now()
				if err := turns.wait(t.Context()); err != nil || time.Since(begin) != c.want {
					t.Errorf("stayed away for %v, %v, want %v", time.Since(begin), err, c.want)
				}
			})
		})
	}
}

// TestTurnsEnd: nobody waits for a turn after the run was cancelled.
func TestTurnsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		long := turns{held: time.Minute, since: time.Now()}
		if err := long.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting: %v", err)
		}
		if err := new(turns).wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("not waiting: %v", err)
		}
	})
}
