package store

import (
	"context"
	"sync/atomic"
	"time"
)

// scrubbing is what is left to clean up after destroyed material.
type scrubbing struct {
	due   atomic.Bool  // it may still lie in the database's files
	again atomic.Int64 // not to be tried before this time, in nanoseconds since 1970
}

// scrubEvery is how long to wait after a scrub that failed: trying holds up whoever writes.
const scrubEvery = 10 * time.Second

// scrub lets the driver clean up after destroyed material. What fails now, because somebody reads the old state, is done
// after a later change or at Close.
func (d *Database) scrub(ctx context.Context) {
	if !d.scrubs.due.Load() || time.Now().UnixNano() < d.scrubs.again.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	d.scrubs.due.Store(false) // before, so that what is destroyed meanwhile counts anew
	if d.b.Scrub(ctx) != nil {
		d.scrubs.due.Store(true)
		d.scrubs.again.Store(time.Now().Add(scrubEvery).UnixNano())
	}
}
