package sqlite

import (
	"context"
	"time"
)

// turns gives the application its turn. SQLite has no queue of those who wait for the lock: they look again every few
// milliseconds, up to a hundred of them, and give up after their timeout. A writer that takes the lock again the moment it
// gave it back would let nobody in.
type turns struct {
	held  time.Duration // how long the last transaction took
	since time.Time     // when it ended

	version int64     // PRAGMA data_version when it was last looked at: our own commits leave it as it is
	company time.Time // when it was last another one
}

// How long the lock is free after a transaction: a quarter of the time it was held, or all of it when somebody else wrote
// within the last second.
const (
	alone    = 4
	together = 1
	maxTurn  = 50 * time.Millisecond
)

// wait stays away until the application had its turn. What was waited for pages anyway counts.
func (t *turns) wait(ctx context.Context) error {
	share := time.Duration(alone)
	if time.Since(t.company) < time.Second {
		share = together
	}
	if left := min(t.held/share, maxTurn) - time.Since(t.since); left > 0 {
		return pause(ctx, left)
	}
	return ctx.Err()
}

// ended keeps how long a transaction took that began then.
func (t *turns) ended(begin time.Time) {
	t.since = time.Now()
	t.held = t.since.Sub(begin)
}

// saw keeps a data version.
func (t *turns) saw(version int64) {
	if t.version != 0 && t.version != version {
		t.company = time.Now()
	}
	t.version = version
}
