package keyring

import (
	"context"
	"sync"
	"time"
)

// loadTimeout bounds one load on behalf of everybody who waits for it.
const loadTimeout = 30 * time.Second

// flight makes one load out of many that ask for the same thing at the same time. The zero value is ready.
type flight[K comparable, V any] struct {
	mu    sync.Mutex // guards loads
	loads map[K]*load[V]
}

// load is one that is under way; value and err are set before done is closed, never after.
type load[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// do joins the load of key or starts it. The load doesn't end with the caller who happened to start it, so it keeps the
// values of that caller's ctx and not its cancellation; every caller waits no longer than its own ctx.
func (f *flight[K, V]) do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, error) {
	f.mu.Lock()
	l, ok := f.loads[key]
	if !ok {
		l = &load[V]{done: make(chan struct{})}
		if f.loads == nil {
			f.loads = map[K]*load[V]{}
		}
		f.loads[key] = l
		go f.run(ctx, key, l, fn)
	}
	f.mu.Unlock()
	select {
	case <-l.done:
		return l.value, l.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (f *flight[K, V]) run(ctx context.Context, key K, l *load[V], fn func(context.Context) (V, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	defer func() {
		f.mu.Lock()
		delete(f.loads, key)
		f.mu.Unlock()
		close(l.done)
	}()
	l.value, l.err = fn(ctx)
}
