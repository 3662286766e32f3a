package keyturn

import (
	"container/list"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// openers caches the data keys that messages were opened under, by their wrapped form: bounded, the least recently used
// goes first, each at most MaxAge old, fetched once however many wait for it. Failures aren't kept.
type openers struct {
	cfg   *EnvelopeConfig
	fetch func(context.Context, string) (*envelope.Key, error)

	// front is recent's front, for those who open message after message under one data key: no lock, nothing to move.
	front atomic.Pointer[opener]

	mu      sync.Mutex // guards everything below, and the writing of front
	entries map[string]*opener
	recent  list.List // of *opener; front = used last; holds fetched ones only
	closed  bool
}

// opener is one data key. key and err are written before done is closed and never after.
type opener struct {
	wrapped string
	done    chan struct{}
	key     *envelope.Key
	err     error
	place   *list.Element // nil until it was fetched; guarded by openers.mu
	timer   *time.Timer   // likewise
}

// get is the data key behind a wrapped one.
func (o *openers) get(ctx context.Context, wrapped string) (*envelope.Key, error) {
	if p := o.front.Load(); p != nil && p.wrapped == wrapped {
		return p.key, nil
	}
	p, err := o.find(ctx, wrapped)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
		return p.key, p.err
	default:
	}
	select {
	case <-p.done:
		return p.key, p.err
	case <-ctx.Done():
		return nil, fault.Wrap("", ctx.Err(), "waiting for a data key")
	}
}

// find is the entry of a wrapped key, fetched, being fetched, or begun now.
func (o *openers) find(ctx context.Context, wrapped string) (*opener, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, errClosed
	}
	if p := o.entries[wrapped]; p != nil {
		if p.place != nil {
			o.recent.MoveToFront(p.place)
			o.front.Store(p)
		}
		return p, nil
	}
	p := &opener{wrapped: strings.Clone(wrapped), done: make(chan struct{})} // a clone, not to keep the whole message
	o.entries[p.wrapped] = p
	go o.run(context.WithoutCancel(ctx), p)
	return p, nil
}

// run fetches p and settles it. It goes on when the caller that began it gives up.
func (o *openers) run(ctx context.Context, p *opener) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	key, err := o.fetch(ctx, p.wrapped)

	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(p.done)
	if p.key, p.err = key, err; err != nil {
		delete(o.entries, p.wrapped)
		return
	}
	if o.closed {
		delete(o.entries, p.wrapped)
		p.key, p.err = nil, errClosed
		key.Destroy()
		return
	}
	p.place = o.recent.PushFront(p)
	o.front.Store(p)
	p.timer = time.AfterFunc(o.cfg.MaxAge, func() { o.expire(p) })
	for o.recent.Len() > o.cfg.CacheSize {
		o.drop(o.recent.Back().Value.(*opener))
	}
}

// expire ends p at its age.
func (o *openers) expire(p *opener) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(p)
}

// drop destroys p unless it was dropped before; the caller holds mu.
func (o *openers) drop(p *opener) {
	if o.entries[p.wrapped] != p || p.place == nil {
		return
	}
	delete(o.entries, p.wrapped)
	o.recent.Remove(p.place)
	o.front.CompareAndSwap(p, nil)
	p.timer.Stop()
	p.key.Destroy()
}

func (o *openers) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for o.recent.Len() > 0 {
		o.drop(o.recent.Back().Value.(*opener))
	}
}
