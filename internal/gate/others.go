package gate

import (
	"context"
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// Others names the processes that hold a shard of the log beside this one, each once: who runs on the store now, or was
// killed less than a lease ago. None where no other can.
func (g *Gate) Others(ctx context.Context) ([]string, error) {
	if !g.shared {
		return nil, nil
	}
	own := g.ownHead().Shard
	var names []string
	err := g.st.View(ctx, func(tx store.Tx) error {
		names = nil
		now, err := tx.Now(ctx, g.now())
		if err != nil {
			return err
		}
		heads, err := tx.Heads(ctx)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if h.Shard != own && h.Node != "" && h.LeaseUntil.After(now) && !slices.Contains(names, h.Node) {
				names = append(names, h.Node)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fault.Wrap("", err, "looking for other nodes")
	}
	return names, nil
}
