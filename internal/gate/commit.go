package gate

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// batch is the events that wait together. While it is gathering, gate.mu guards it; the leader takes it away from there
// and then is alone with it. err may be read once done is closed.
type batch struct {
	contents
	records []*record     // of the events in order, while others may change the store; the leader's, like what he writes into them
	want    int           // how many events the leader waits for; 0 while he doesn't
	full    chan struct{} // closed when want is reached
	done    chan struct{} // closed when the outcome is known
	err     error
}

// maxLine is the longest event in bytes that is recorded: far below what a verifier reads, far above what keyturn makes.
const maxLine = audit.MaxLine / 4

// encode makes the event's line.
func (r *record) encode() error {
	r.line = audit.AppendJSON(r.line[:0], &r.ev)
	if len(r.line) > maxLine {
		return fault.Newf(api.CodeTooLarge, "recording an operation whose event would take more than %d bytes", maxLine).
			WithNext("use a shorter encryption context")
	}
	return nil
}

// alone is the event as the contents of a segment of its own.
func (r *record) alone() *contents {
	c := &contents{}
	c.add(r.line, audit.LeafHash(r.line), audit.ResourceMask(r.ev.Resource), r.ev.Time)
	return c
}

// submit records the event and returns when it is durable, or unavailable. It doesn't depend on a request's context: what
// was done is recorded even if nobody waits for the answer any more, and one who leaves doesn't harm the others in his
// segment. How long it takes is bounded by the store.
func (g *Gate) submit(r *record) error {
	if err := r.encode(); err != nil {
		return err
	}
	r.leaf, r.outdated = audit.LeafHash(r.line), false // here, so that the leader doesn't do everybody's hashing
	b, leader := g.join(r, audit.ResourceMask(r.ev.Resource))
	if leader {
		g.lead(b)
	} else {
		<-b.done
	}
	if b.err == nil && r.outdated {
		return errOutdated
	}
	return b.err
}

// join puts the event into the batch that gathers, and says whether it opened it.
func (g *Gate) join(r *record, mask uint64) (b *batch, leader bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open, leader = &batch{done: make(chan struct{}), err: errLost}, true
		if c := g.spare; c != nil {
			g.open.lines, g.open.leaves, g.spare = c.lines[:0], c.leaves[:0], nil
		}
	}
	b = g.open
	b.add(r.line, r.leaf, mask, r.ev.Time)
	if g.shared {
		b.records, b.premises = append(b.records, r), join(b.premises, r.premises...)
	}
	if len(b.leaves) == b.want {
		close(b.full)
	}
	return b, leader
}

// errLost is what waiters get if the leader dies on a programming error.
var errLost = fault.New(api.CodeUnavailable, "recording an operation: the audit log's writer failed")

// lead waits for the turn, commits whatever has gathered, and wakes the others.
func (g *Gate) lead(b *batch) {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	g.gather(b)
	g.mu.Lock()
	g.open = nil
	g.mu.Unlock()
	defer close(b.done)
	b.err = g.commit(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shard.expect = len(b.leaves)
	if g.open != nil {
		g.shard.expect += len(g.open.leaves)
	}
	if b.err == nil && cap(b.lines) <= keepLines { // after a failure the store may still hold the buffer
		g.spare = &contents{lines: b.lines, leaves: b.leaves}
	}
}

// keepLines is how large a batch's buffer may be to be used again.
const keepLines = 1 << 20

// gather gives those who were just woken the time to come back with their next operation, while many do: until as many
// wait as took part in the last round, or the time is over. With one or two callers it would only cost them time.
func (g *Gate) gather(b *batch) {
	if g.shard.expect <= 2 || g.cfg.Gather < 0 {
		return
	}
	g.mu.Lock()
	if len(b.leaves) >= g.shard.expect {
		g.mu.Unlock()
		return
	}
	b.want, b.full = g.shard.expect, make(chan struct{})
	g.mu.Unlock()
	patience := time.NewTimer(g.cfg.Gather)
	defer patience.Stop()
	select {
	case <-b.full:
	case <-patience.C:
	}
}

// tries is how often an append is built anew because an earlier one turned out to have arrived: once is what can
// happen, the rest is for a store that behaves oddly.
const tries = 3

// errArrived says that the attempt in whose favour place was to step back is in the log.
var errArrived = errors.New("an earlier attempt has arrived")

// place appends one segment in our turn and returns when it is durable; otherwise unavailable, and nothing of it may be
// answered, or errFallen. It steps back with errArrived if the attempt with the nonce unless turns out to be in the log.
func (g *Gate) place(c *contents, unless string) error {
	err := g.tryPlacing(c, unless)
	_, fallen := err.(errFallen) //nolint:errorlint // never wrapped
	g.refusing.Store(err != nil && !errors.Is(err, errArrived) && !fallen)
	return err
}

func (g *Gate) tryPlacing(c *contents, unless string) error {
	for range tries {
		if err := g.ready(); err != nil {
			return err
		}
		if unless != "" && g.shard.nonce == unless {
			return errArrived
		}
		a := g.shard.build(c)
		err := g.st.Append(context.Background(), &a.segment)
		switch {
		case err == nil:
			g.advance(&a)
			return nil
		case errors.Is(err, audit.ErrFenced):
			if err := g.settle(); err != nil {
				return err
			}
			if err := g.fallen(c.premises); err != nil {
				return err
			}
		case g.arrived(&a): // whatever the error said: the head knows
			return nil
		default:
			return fault.Wrap(api.CodeUnavailable, err, "recording an operation in the audit log: it is refused").
				WithNext("try again when the store can write")
		}
	}
	return fault.New(api.CodeUnavailable, "recording an operation in the audit log: its shard doesn't take it").WithNext("try again")
}
