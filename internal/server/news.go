package server

import (
	"context"

	"github.com/keyturn/keyturn/internal/store"
)

// listenToNodes forgets what other nodes change, as soon as they say so; while they can't be heard, everything each second.
// Close ends it.
func (s *Server) listenToNodes(ctx context.Context) {
	ctx, s.deaf = context.WithCancel(context.WithoutCancel(ctx))
	s.working.Go(func() { s.store.Listen(ctx, s.heard) })
	if s.opts.Embedded { // a program that lives long; a server watches by itself, and a command may be over in a moment
		s.working.Go(func() { s.watchDue(ctx) })
	}
}

func (s *Server) heard(n store.News) {
	if n.All {
		s.ring.DropAll()
	}
	for _, id := range n.Keys {
		s.ring.Drop(id)
	}
	if n.SignIns || n.All {
		s.signIns.Drop()
	}
}
