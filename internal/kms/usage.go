package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// What one reservation asks for. A version's counters in the store are ahead of the truth by at most this much per node,
// so that no call writes a counter, and a crash makes them too high, never too low.
const (
	blockOperations = 10_000
	blockBytes      = 64 << 20
	// blockShare divides what is left below a limit: near it, reservations shrink, down to single operations at the end,
	// so that nodes don't keep one another from using up a version.
	blockShare = 16
)

// openedEvery is how often the last use of a version for opening is written down.
const openedEvery = time.Minute

// usage knows what versions were used for on this node. It is safe for concurrent use.
type usage struct {
	st    store.Store
	clock func() time.Time

	mu   sync.RWMutex
	live map[versionRef]*live // guarded by mu; entries are never removed: versions are few
}

type versionRef struct {
	id envelope.KeyID
	n  uint32
}

// live is one version in use.
type live struct {
	ref versionRef

	mu                   sync.Mutex // held during a reservation: whoever comes meanwhile uses the same block
	ops, bytes           uint64     // reserved in the store and not used yet; guarded by mu
	totalOps, totalBytes uint64     // the store's totals after the last reservation; guarded by mu
	opened               atomic.Int64
	marking              sync.Mutex // held while the last opening is written
	closed               bool       // no reservation any more; guarded by mu
}

func newUsage(st store.Store, clock func() time.Time) *usage {
	return &usage{st: st, clock: clock, live: map[versionRef]*live{}}
}

func (u *usage) of(id envelope.KeyID, n uint32) *live {
	ref := versionRef{id, n}
	u.mu.RLock()
	l := u.live[ref]
	u.mu.RUnlock()
	if l != nil {
		return l
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if l = u.live[ref]; l == nil {
		l = &live{ref: ref}
		u.live[ref] = l
	}
	return l
}

// take uses up operations and bytes of version n of k, reserving a block when this node has none left. It returns after
// the reservation is durable. Errors: limit when the version may protect no more, those of the store otherwise.
func (u *usage) take(ctx context.Context, k *keys.Key, n uint32, ops, bytes uint64) error {
	l := u.of(k.ID, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ops < ops || l.bytes < bytes {
		if err := u.reserve(ctx, l, k, ops, bytes); err != nil {
			return err
		}
	}
	l.ops -= ops
	l.bytes -= bytes
	return nil
}

// reserve fetches a block for what l is short of. Called with l.mu held.
func (u *usage) reserve(ctx context.Context, l *live, k *keys.Key, ops, bytes uint64) error {
	if l.closed {
		return fault.New(api.CodeUnavailable, "keyturn is stopping")
	}
	v, _ := k.Version(l.ref.n)
	shortOps, shortBytes := ops-min(ops, l.ops), bytes-min(bytes, l.bytes)
	wantOps := block(blockOperations, shortOps, k.Cryptoperiod.MaxOperations, max(v.Operations, l.totalOps))
	wantBytes := block(blockBytes, shortBytes, k.Cryptoperiod.MaxBytes, max(v.Bytes, l.totalBytes))
	err := u.reserveExactly(ctx, l, k, wantOps, wantBytes)
	if fault.CodeOf(err) == api.CodeLimit {
		err = u.reserveExactly(ctx, l, k, shortOps, shortBytes)
	}
	if fault.CodeOf(err) == api.CodeLimit {
		u.useUp(ctx, l, k, shortOps, shortBytes)
		return keys.LimitReached(k.Name, l.ref.n)
	}
	return err
}

// useUp has the next version made where what is left of this one is too little for somebody. Called with l.mu held. Failing to do
// so leaves it to the next who is refused.
func (u *usage) useUp(ctx context.Context, l *live, k *keys.Key, ops, bytes uint64) {
	if k.Cryptoperiod.Used(l.totalOps, l.totalBytes) >= keys.UsedUp {
		return // whoever brought it that far has seen to it
	}
	_ = u.st.Change(ctx, func(tx store.Tx) error { return store.UseUp(ctx, tx, k, l.ref.n, ops, bytes, u.clock()) })
}

// block is how much to reserve of what this call is short of; 0 when it isn't.
func block(size, short, limit, total uint64) uint64 {
	if short == 0 {
		return 0
	}
	if limit > 0 {
		size = min(size, (limit-min(limit, total))/blockShare)
	}
	return max(size, short)
}

func (u *usage) reserveExactly(ctx context.Context, l *live, k *keys.Key, ops, bytes uint64) error {
	var totalOps, totalBytes uint64
	err := u.st.Change(ctx, func(tx store.Tx) (err error) {
		totalOps, totalBytes, err = store.Spend(ctx, tx, k, l.ref.n, ops, bytes, u.clock())
		return err
	})
	if err != nil {
		return fault.Wrap("", err, "counting the use of a key version")
	}
	l.ops, l.bytes = l.ops+ops, l.bytes+bytes
	l.totalOps, l.totalBytes = totalOps, totalBytes
	return nil
}

// rest is what this node has reserved and not used of a version: what the store's counters are too high by.
func (u *usage) rest(id envelope.KeyID, n uint32) (ops, bytes uint64) {
	u.mu.RLock()
	l := u.live[versionRef{id, n}]
	u.mu.RUnlock()
	if l == nil {
		return 0, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops, l.bytes
}

// release gives the unused rest of a version back: it protects nothing any more.
func (u *usage) release(ctx context.Context, id envelope.KeyID, n uint32) error {
	l := u.of(id, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	return u.giveBack(ctx, l)
}

// giveBack is called with l.mu held. After an error of which nobody knows whether it came before or after the commit the
// rest counts as given back: the counters may then be too high, never too low.
func (u *usage) giveBack(ctx context.Context, l *live) error {
	if l.ops == 0 && l.bytes == 0 {
		return nil
	}
	err := u.st.Change(ctx, func(tx store.Tx) error {
		return tx.ReturnUsage(ctx, l.ref.id, l.ref.n, l.ops, l.bytes)
	})
	if err == nil || errors.Is(err, store.ErrCommitUnknown) {
		l.ops, l.bytes = 0, 0
	}
	return err
}

// close gives every rest back and reserves nothing any more. What a failure leaves behind is counted too high.
func (u *usage) close(ctx context.Context) error {
	u.mu.RLock()
	all := make([]*live, 0, len(u.live))
	for _, l := range u.live {
		all = append(all, l)
	}
	u.mu.RUnlock()
	var first error
	for _, l := range all {
		l.mu.Lock()
		l.closed = true
		if err := u.giveBack(ctx, l); err != nil && first == nil {
			first = err
		}
		l.mu.Unlock()
	}
	return first
}

// opened writes down that a version was used for opening, unless that was done within the last minute. It returns after
// the note is durable: destroying looks at it, so it must not be lost.
func (u *usage) opened(ctx context.Context, id envelope.KeyID, n uint32, now time.Time) error {
	l := u.of(id, n)
	if l.isFresh(now) {
		return nil
	}
	l.marking.Lock()
	defer l.marking.Unlock()
	if l.isFresh(now) {
		return nil
	}
	err := u.st.Change(ctx, func(tx store.Tx) error { return tx.MarkOpened(ctx, id, n, now) })
	if err != nil {
		return fault.Wrap("", err, "noting the use of a key version")
	}
	l.opened.Store(now.UnixNano())
	return nil
}

// isFresh says whether the last note is recent. A clock that went back makes it stale.
func (l *live) isFresh(now time.Time) bool {
	last := l.opened.Load()
	age := now.UnixNano() - last
	return last != 0 && age >= 0 && age < int64(openedEvery)
}
