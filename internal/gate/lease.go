package gate

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// acquire takes a shard and its head.
func (g *Gate) acquire(ctx context.Context) error {
	var head audit.Head
	err := g.st.Change(ctx, func(tx store.Tx) error {
		now, err := tx.Now(ctx, g.now())
		if err == nil {
			head, err = tx.AcquireShard(ctx, g.cfg.Node, now, g.cfg.Lease)
		}
		return err
	})
	if err != nil {
		return fault.Wrap("", err, "taking a shard of the audit log")
	}
	tree, err := audit.TreeFrom(head.Size, head.Edge)
	if err == nil && tree.Root() != head.Root {
		err = fault.Newf(api.CodeIntegrity, "the head of audit shard %d contradicts itself", head.Shard)
	}
	if err != nil {
		g.stop(err)
		return err
	}
	g.shard = shard{number: head.Shard, epoch: head.Epoch, seq: head.Seq, nonce: head.Nonce, tree: *tree}
	g.head = audit.ShardHead{Shard: head.Shard, Size: head.Size, Root: head.Root}
	return nil
}

// keepLease renews the lease until the gate closes. A renewal that fails is tried again: as long as nobody took the
// shard it stays ours, and who takes it fences our appends.
func (g *Gate) keepLease(running context.Context) {
	tick := time.NewTicker(g.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-running.Done():
			return
		case <-tick.C:
		}
		err := g.renew(running, g.cfg.Lease)
		switch {
		case err == nil || running.Err() != nil:
		case errors.Is(err, audit.ErrFenced):
			g.stop(fault.Wrapf(api.CodeUnavailable, err, "another node has taken audit shard %d over, because this one was away for too long", g.shard.number))
			return
		default:
			g.cfg.Log.Warn("renewing the lease of the audit shard failed", "reason", fault.MessageOf(err))
		}
	}
}

// giveUp ends the lease, so that the next process can have the shard at once.
func (g *Gate) giveUp(ctx context.Context) error {
	if !g.shared {
		return nil // the lock on the file is the lease
	}
	err := g.renew(ctx, -time.Microsecond)
	if errors.Is(err, audit.ErrFenced) {
		return nil
	}
	return err
}

// renew moves the lease to so long from now, by the clock that all nodes of the store share: by its own, a node whose clock
// is ahead would take the shards of those that are alive.
func (g *Gate) renew(ctx context.Context, lease time.Duration) error {
	number, epoch := g.shard.number, g.shard.epoch // both fixed since acquire
	return g.st.Change(ctx, func(tx store.Tx) error {
		now, err := tx.Now(ctx, g.now())
		if err != nil {
			return err
		}
		return tx.RenewShard(ctx, number, epoch, now.Add(lease))
	})
}
