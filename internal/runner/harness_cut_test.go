package runner

import (
	"context"
	"sync/atomic"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// cutStore is a store as a dying process has it: after cut, nothing it writes arrives.
type cutStore struct {
	store.Store
	cut atomic.Bool
}

var errCut = fault.New(api.CodeUnavailable, "this process is dead")

func (c *cutStore) View(ctx context.Context, fn func(store.Tx) error) error {
	if c.cut.Load() {
		return errCut
	}
	return c.Store.View(ctx, fn)
}

func (c *cutStore) Change(ctx context.Context, fn func(store.Tx) error) error {
	if c.cut.Load() {
		return errCut
	}
	return c.Store.Change(ctx, fn)
}
