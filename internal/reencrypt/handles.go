package reencrypt

import (
	"context"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// What one reservation of a version's counters asks for; see ReserveUsage of package keys. The rest goes back at the end
// of the chunk. A crash leaves the counters too high by at most this, never too low.
const (
	blockOperations = 100_000
	blockBytes      = 64 << 20
)

// handles is a key for the length of one chunk: Keys over the keyring. It is safe for concurrent use.
type handles struct {
	s           *Service
	key         *keys.Key
	current     *envelope.Key
	compromised bool // whether compromised versions may be opened

	mu         sync.Mutex // held during a reservation
	ops, bytes uint64     // reserved and not used yet; guarded by mu
}

// handlesOf looks a column's key up anew, so that every chunk works towards what is active when it begins.
func (s *Service) handlesOf(ctx context.Context, id envelope.KeyID, kind Kind, compromised bool) (*handles, error) {
	s.cfg.Ring.Drop(id) // a rotation on another node may not have reached our cache yet
	k, err := s.cfg.Ring.LookupID(ctx, id)
	if err != nil {
		return nil, err
	}
	h := &handles{s: s, key: k, compromised: compromised}
	if !kind.seals() {
		return h, nil
	}
	v, err := k.Usable(s.cfg.Clock())
	if err == nil {
		err = s.unburied(k, v.Number)
	}
	if err != nil {
		return nil, err
	}
	h.current, err = s.cfg.Ring.Version(ctx, k, v.Number)
	return h, err
}

// unburied refuses a version that was destroyed and that an older store brought back.
func (s *Service) unburied(k *keys.Key, n uint32) error {
	if !s.cfg.Buried(k.ID, n) {
		return nil
	}
	return fault.Newf(api.CodeWrongState, "version %d of key %s was destroyed, and an older store brought it back", n, k.Name).
		WithNext("the list of destroyed versions beside the store forbids its use; see keyturn doctor")
}

func (h *handles) ID() envelope.KeyID     { return h.key.ID }
func (h *handles) Current() *envelope.Key { return h.current }

// Opener opens what may be opened. Moving data away from a compromised version is the way out of a compromise, and nothing
// that was opened leaves the process then; so re-encryption may where a caller of decrypt needs a right of his own.
//
// The version is marked as opened, durably, before it is used: its destruction waits for the quiet time after that.
func (h *handles) Opener(ctx context.Context, version uint32) (*envelope.Key, error) {
	if _, err := h.key.MayProcess(version, h.compromised); err != nil {
		if fault.CodeOf(err) == api.CodeDenied {
			err = fault.New(api.CodeWrongState, "its version is compromised, and who asked may not decrypt under such")
		}
		return nil, err
	}
	if err := h.s.unburied(h.key, version); err != nil {
		return nil, err
	}
	now := h.s.cfg.Clock()
	err := h.s.cfg.Store.Change(ctx, func(tx store.Tx) error { return tx.MarkOpened(ctx, h.key.ID, version, now) })
	if err != nil {
		return nil, err
	}
	return h.s.cfg.Ring.Version(ctx, h.key, version)
}

// Newest asks the store: this chunk's key, and our cache, may be older than a value that somebody has just sealed.
func (h *handles) Newest(ctx context.Context) (n uint32, err error) {
	err = h.s.cfg.Store.View(ctx, func(tx store.Tx) error {
		k, err := tx.KeyByID(ctx, h.key.ID)
		n = uint32(len(k.Versions))
		return err
	})
	return n, err
}

// Spend takes what was sealed from a block of the version's counters.
func (h *handles) Spend(ctx context.Context, operations, bytes uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ops < operations || h.bytes < bytes {
		wantOps, wantBytes := operations-min(operations, h.ops), bytes-min(bytes, h.bytes)
		err := h.reserve(ctx, max(wantOps, blockOperations), max(wantBytes, blockBytes))
		if fault.CodeOf(err) == api.CodeLimit {
			err = h.reserve(ctx, wantOps, wantBytes)
		}
		if fault.CodeOf(err) == api.CodeLimit { // a server makes the next version by itself, which the next attempt then finds
			if used := h.useUp(ctx, wantOps, wantBytes); used != nil {
				return used
			}
			return fault.Wrap(api.CodeBusy, err, fault.MessageOf(err)).WithNext("a server makes a new version by itself; without one: keyturn key rotate " + h.key.Name)
		}
		if err != nil {
			return err
		}
	}
	h.ops -= operations
	h.bytes -= bytes
	return nil
}

// useUp has the next version made where what is left of this one is too little.
func (h *handles) useUp(ctx context.Context, ops, bytes uint64) error {
	return h.s.cfg.Store.Change(ctx, func(tx store.Tx) error {
		return store.UseUp(ctx, tx, h.key, h.current.Header().Version, ops, bytes, h.s.cfg.Clock())
	})
}

// reserve is called with h.mu held.
func (h *handles) reserve(ctx context.Context, ops, bytes uint64) error {
	err := h.s.cfg.Store.Change(ctx, func(tx store.Tx) error {
		_, _, err := store.Spend(ctx, tx, h.key, h.current.Header().Version, ops, bytes, h.s.cfg.Clock())
		return err
	})
	if err == nil {
		h.ops += ops
		h.bytes += bytes
	}
	return err
}

// release gives back what was reserved and not used. Failing to do so only leaves the counters too high.
func (h *handles) release(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ops == 0 && h.bytes == 0 {
		return
	}
	_ = h.s.cfg.Store.Change(ctx, func(tx store.Tx) error {
		return tx.ReturnUsage(ctx, h.key.ID, h.current.Header().Version, h.ops, h.bytes)
	})
	h.ops, h.bytes = 0, 0
}
