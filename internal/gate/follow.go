package gate

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// news tells followers that our shard has grown.
type news struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next append; nil while nobody listens
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
		n.next = nil
	}
}

func (n *news) listen() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

// othersEvery is how often a follower looks for what other nodes wrote.
const othersEvery = time.Second

// Follow calls fn, as Query does, with every selected event that becomes durable from now on, of all nodes, until ctx
// ends (which is no error), fn fails or the gate stops. Order, After and Limit of the filter have no meaning here.
func (g *Gate) Follow(ctx context.Context, f Filter, fn func(line []byte) error) error {
	s := sieve{matcher: newMatcher(f), fn: fn}
	seen := map[int]uint64{}
	others := time.NewTicker(othersEvery)
	defer others.Stop()
	for n, size := range f.From {
		seen[n] = size
	}
	for first := f.From == nil; ; first = false {
		grown := g.news.listen() // before looking, so that nothing falls between
		heads, err := g.sizes(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		for _, h := range heads {
			if !first {
				err = g.walkFrom(ctx, seen[h.Shard], h, func(seg *audit.Segment) error { return s.segment(seg, 0, false) })
			}
			if err != nil {
				return ended(ctx, err)
			}
			seen[h.Shard] = h.Size
		}
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		case <-others.C:
		}
		if err := g.Err(); err != nil {
			return err
		}
	}
}

// ended is nil for what only ended because ctx did.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Sizes is how many events each shard holds now.
func (g *Gate) Sizes(ctx context.Context) (map[int]uint64, error) {
	heads, err := g.sizes(ctx)
	out := make(map[int]uint64, len(heads))
	for _, h := range heads {
		out[h.Shard] = h.Size
	}
	return out, err
}

// sizes reads the heads of all shards.
func (g *Gate) sizes(ctx context.Context) (out []audit.ShardHead, err error) {
	err = g.st.View(ctx, func(tx store.Tx) error {
		heads, err := tx.Heads(ctx)
		out = nil
		for _, h := range heads {
			out = append(out, audit.ShardHead{Shard: h.Shard, Size: h.Size, Root: h.Root})
		}
		return err
	})
	return out, err
}

// Status is the log at a glance.
type Status struct {
	Events     uint64           // in all shards
	Checkpoint audit.Checkpoint // the newest; Sequence 0 = none yet
}

// Status reads the size of the log and its newest checkpoint.
func (g *Gate) Status(ctx context.Context) (Status, error) {
	e, err := g.readEnds(ctx)
	if err != nil {
		return Status{}, fault.Wrap("", err, "reading the state of the audit log")
	}
	s := Status{Checkpoint: e.signed}
	for _, h := range e.heads {
		s.Events += h.Size
	}
	return s, nil
}
