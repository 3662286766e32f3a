package keyring

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
)

// custody is how long what was opened may be used while no master key can be reached. The zero value has no limit, which
// is right for a process that ends soon.
type custody struct {
	limit     atomic.Int64 // nanoseconds; 0 = none
	confirmed atomic.Pointer[time.Time]
	shut      atomic.Bool // the keys were forgotten
}

// Limit has the ring serve no longer than d after the last time that a master key was reached (Confirm, Open, Use): then
// every use is refused as unavailable, whatever is in memory. A process that sets it calls Confirm more often than that.
// The time is that of the machine's clock since boot, so setting the clock neither shortens nor stretches it.
func (r *Ring) Limit(d time.Duration) {
	r.Confirm()
	r.custody.limit.Store(int64(d))
}

// Confirm notes that a master key was reached just now and is still the one that the store was opened with.
func (r *Ring) Confirm() {
	now := time.Now()
	r.custody.confirmed.Store(&now)
}

// Usable is nil while keys may be used, and otherwise says since when no master key was reached.
func (r *Ring) Usable() error {
	limit := time.Duration(r.custody.limit.Load())
	if limit == 0 {
		return nil
	}
	last := *r.custody.confirmed.Load() // set before the limit
	if !r.custody.shut.Load() && time.Since(last) < limit {
		return nil
	}
	return fault.Newf(api.CodeUnavailable, "using keys: no master key was reached since %s, longer than the %s for which open keys serve without one",
		last.UTC().Format(time.RFC3339), limit).
		WithNext("give keyturn access to a master key again, its log says what failed; it then goes on by itself")
}

// Shut forgets every key, and the master keys that were handed over, once Usable refuses: who looks into this process's
// memory then finds none. Use opens the ring again, with master keys that were fetched anew.
func (r *Ring) Shut() {
	r.custody.shut.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, versions := range r.versions {
		for _, v := range versions {
			v.key.Destroy()
		}
	}
	for _, k := range r.keks {
		k.key.Destroy()
	}
	r.forget()
	r.keks, r.active = map[keys.KEKID]*openKEK{}, map[keys.KEKPurpose]*openKEK{}
	for _, m := range r.masters {
		_ = m.Close()
	}
}

// IsShut says whether Shut was called and Use has not opened the ring again.
func (r *Ring) IsShut() bool { return r.custody.shut.Load() }

// Reaches opens one key-encryption key under a master key that was fetched just now, and forgets it again: nil when the
// master key is one that the store is wrapped under.
func (r *Ring) Reaches(ctx context.Context, master MasterKey) error {
	records, err := r.src.KEKs(ctx)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.Active {
			return r.tryKEK(ctx, rec, master)
		}
	}
	return fault.New(api.CodeNotFound, "the store has no key-encryption keys").WithNext("keyturn init")
}
