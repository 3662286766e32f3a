package reencrypt

import (
	"context"
	"time"
)

// skippedCost is what a row costs in which nothing is to be done, in parts of one that is written: it is read all the
// same, but locks nothing, writes nothing and leaves nothing to be vacuumed.
const skippedCost = 1.0 / 16

// pace keeps a run at its rate: what was spent is waited off before the next page. A pause of the run is not saved up.
// It belongs to the goroutine that reads.
type pace struct {
	rate float64 // rows a second; 0 = no limit
	next time.Time
}

// spend accounts for rows and waits until they are paid for. The error is that of ctx.
func (p *pace) spend(ctx context.Context, rows, skipped int) error {
	if p.rate <= 0 {
		return nil
	}
	cost := float64(rows-skipped) + float64(skipped)*skippedCost
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(cost / p.rate * float64(time.Second)))
	wait := time.NewTimer(p.next.Sub(now))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
