package gate

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// shard is the end of our shard as this process knows it. It belongs to whoever has the turn.
type shard struct {
	number int
	epoch  int64
	seq    uint64 // of the last segment that is known to be durable
	nonce  string // of the same
	tree   audit.Tree

	expect int       // events to expect in the next segment: see gather
	tried  []attempt // appends without an answer, all for segment seq+1: one of them may still arrive
	unsure bool      // the head could not be read after the last failure
}

// contents is what goes into one segment.
type contents struct {
	lines       []byte // joined by newlines
	leaves      []audit.Hash
	mask        uint64
	first, last time.Time

	premises []audit.Premise // what the events rest on, each once; none where nobody else can change the store
}

func (c *contents) add(line []byte, leaf audit.Hash, mask uint64, at time.Time) {
	if len(c.leaves) > 0 {
		c.lines = append(c.lines, '\n')
	}
	if len(c.leaves) == 0 || at.Before(c.first) {
		c.first = at
	}
	if len(c.leaves) == 0 || at.After(c.last) {
		c.last = at
	}
	c.lines, c.leaves, c.mask = append(c.lines, line...), append(c.leaves, leaf), c.mask|mask
}

// attempt is a segment with the tree after it.
type attempt struct {
	segment audit.Segment
	tree    audit.Tree
}

// build makes the segment that follows the durable head.
func (s *shard) build(c *contents) attempt {
	a := attempt{tree: s.tree}
	for _, leaf := range c.leaves {
		a.tree.Append(leaf)
	}
	a.segment = audit.Segment{
		Shard: s.number, Seq: s.seq + 1, Epoch: s.epoch, First: s.tree.Size(), Count: len(c.leaves),
		FirstTime: c.first, LastTime: c.last, Mask: c.mask, Lines: c.lines,
		Root: a.tree.Root(), Edge: a.tree.AppendEdge(nil), Nonce: rand.Text(), Premises: c.premises,
	}
	return a
}

// advance makes an attempt that is known to be durable the head.
func (g *Gate) advance(a *attempt) {
	s := &g.shard
	s.seq, s.nonce, s.tree = a.segment.Seq, a.segment.Nonce, a.tree
	clear(s.tried)
	s.tried, s.unsure = s.tried[:0], false
	g.headMu.Lock()
	g.head = audit.ShardHead{Shard: s.number, Size: a.tree.Size(), Root: a.segment.Root}
	g.headMu.Unlock()
	g.news.tell()
}

// arrived finds out whether an attempt without an answer is in the store. False also when that can't be learnt now: it
// stays among those that may still arrive.
func (g *Gate) arrived(a *attempt) bool {
	a.segment.Lines = nil // a caller's buffer
	g.shard.tried = append(g.shard.tried, *a)
	return g.settle() == nil && g.shard.nonce == a.segment.Nonce
}

// ready says whether something may be appended now; after a failure only when the head is known again.
func (g *Gate) ready() error {
	if f := g.stopped.Load(); f != nil {
		return f
	}
	if g.shard.unsure {
		return g.settle()
	}
	return nil
}

// settleTimeout is how long the reading back of the head may take.
const settleTimeout = 10 * time.Second

// settle reads the shard's head back after a failure. It finds the head that we know, or one of the attempts without an
// answer, which then becomes the head that we know. Anything else means that the shard isn't ours any more, and stops
// the gate.
func (g *Gate) settle() error {
	s := &g.shard
	s.unsure = true
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	head, err := g.readHead(ctx)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "reading back the end of the audit log").WithNext("try again when the store answers")
	}
	if head.Epoch != s.epoch {
		g.stop(fault.Wrapf(api.CodeUnavailable, audit.ErrFenced, "another node has taken audit shard %d over, because this one was away for too long", s.number))
		return g.stopped.Load()
	}
	if head.Seq == s.seq && head.Nonce == s.nonce {
		s.unsure = false
		return nil
	}
	for i := range s.tried {
		if a := s.tried[i]; head.Nonce == a.segment.Nonce && head.Seq == a.segment.Seq && head.Root == a.segment.Root {
			g.advance(&a)
			return nil
		}
	}
	g.stop(notOurs(s.number))
	return g.stopped.Load()
}

func (g *Gate) readHead(ctx context.Context) (found audit.Head, err error) {
	err = g.st.View(ctx, func(tx store.Tx) error {
		heads, err := tx.Heads(ctx)
		for _, h := range heads {
			if h.Shard == g.shard.number {
				found = h
				return nil
			}
		}
		if err == nil {
			err = fault.Newf(api.CodeIntegrity, "audit shard %d is gone", g.shard.number)
		}
		return err
	})
	return found, err
}
