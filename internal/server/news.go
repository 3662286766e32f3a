package server

import (
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// listenToNodes forgets what other nodes change, as soon as they say so; while they can't be heard, everything each second.
// Close ends it.
func (s *Server) listenToNodes(ctx context.Context) {
	ctx, s.deaf = context.WithCancel(context.WithoutCancel(ctx))
	s.working.Go(func() { s.store.Listen(ctx, func(n store.News) { s.heard(ctx, n) }) })
	if s.opts.Embedded { // a program that lives long; a server watches by itself, and a command may be over in a moment
		s.working.Go(func() { s.watchDue(ctx) })
	}
}

func (s *Server) heard(ctx context.Context, n store.News) {
	if n.All {
		s.ring.DropAll()
	}
	for _, id := range n.Keys {
		s.ring.Drop(id)
	}
	if n.SignIns || n.All {
		s.signIns.Drop()
	}
	if n.KEKs || n.All {
		// Beside the listening: master keys may be asked over a network, and what comes after this is to be heard meanwhile.
		s.working.Go(func() { s.refreshKEKs(ctx, n.KEKs) })
	}
}

// refreshKEKs has new things wrapped under the newest key-encryption keys, whoever made them. Where it fails nothing is lost: a
// change of a signed row looks again before it is committed (kms.Attested). Told is that there may be any; while nothing can be
// heard, a failure is the database's, and said elsewhere.
func (s *Server) refreshKEKs(ctx context.Context, told bool) {
	if err := s.ring.Refresh(ctx); err != nil && told && ctx.Err() == nil {
		s.log.Warn("key-encryption keys of another node can't be opened", "reason", fault.MessageOf(err))
	}
}
