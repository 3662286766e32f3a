package kms

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// counted wraps a store and counts the changes that don't come through the gate's own segment writes.
type counted struct {
	store.Store
	mu      sync.Mutex
	changes int
}

func (c *counted) Change(ctx context.Context, fn func(store.Tx) error) error {
	c.mu.Lock()
	c.changes++
	c.mu.Unlock()
	return c.Store.Change(ctx, fn)
}

// P4 and the cryptoperiod by operations: as many as allowed and not one more, also for many at once.
func TestLimitOfOperations(t *testing.T) {
	for _, limit := range []uint64{1, 3, 40, 200} {
		h := newHouse(t, options{})
		h.create(api.CreateKeyRequest{Name: "phi", MaxOperations: limit})
		results := make(chan error, limit+20)
		for range cap(results) {
			go func() {
				_, _, err := h.svc.Encrypt(context.Background(), owner(), "phi", []byte("x"), nil, "", nil)
				results <- err
			}()
		}
		done := uint64(0)
		for range cap(results) {
			if err := <-results; err == nil {
				done++
			} else {
				wants(t, err, api.CodeLimit)
			}
		}
		if done != limit {
			t.Errorf("limit %d: %d operations went through", limit, done)
		}
		if got := h.stored("phi").Versions[0].Operations; got != limit {
			t.Errorf("limit %d: the store counts %d", limit, got)
		}
		_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
		h.must(err)
		h.encrypt("phi", "x", nil)
	}
}

func TestLimitOfBytes(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi", MaxBytes: 100})
	h.encrypt("phi", string(make([]byte, 60)), nil)
	_, err := h.tryEncrypt("phi", string(make([]byte, 101)), nil) // no version has room for it
	wants(t, err, api.CodeLimit)
	if got := h.stored("phi").Versions[0].Bytes; got != 60 {
		t.Errorf("the store counts %d bytes", got)
	}
	_, err = h.tryEncrypt("phi", string(make([]byte, 41)), nil)
	wants(t, err, api.CodeLimit)
	_, err = h.tryEncrypt("phi", "x", nil) // that took the rest away, so that the next version is made
	wants(t, err, api.CodeLimit)
	if fault.NextOf(err) == "" {
		t.Error("the refusal doesn't say what to do")
	}
	if got := h.stored("phi").Versions[0].Bytes; got != 100 {
		t.Errorf("the store counts %d bytes", got)
	}
	h.encrypt("phi", "", nil) // an empty message uses no bytes up
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	h.encrypt("phi", string(make([]byte, 100)), nil)
}

// A block is reserved once, not a write a call; what isn't used is given back when keyturn stops, so the counters of a
// store at rest are exact, and those that are shown always are.
func TestBlocks(t *testing.T) {
	c := &counted{}
	h := newHouse(t, options{wrap: func(st store.Store) store.Store { c.Store = st; return c }})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.encrypt("phi", "12345", nil)
	before := c.changes
	for range 50 {
		h.encrypt("phi", "12345", nil)
	}
	if c.changes != before {
		t.Errorf("%d writes of counters for 50 calls", c.changes-before)
	}
	if v := h.stored("phi").Versions[0]; v.Operations != blockOperations || v.Bytes != blockBytes {
		t.Errorf("reserved %d operations, %d bytes", v.Operations, v.Bytes)
	}
	k, err := h.svc.Show(t.Context(), owner(), "phi")
	h.must(err)
	if k.Versions[0].Operations != 51 || k.Versions[0].Bytes != 255 {
		t.Errorf("shown: %d operations, %d bytes", k.Versions[0].Operations, k.Versions[0].Bytes)
	}
	h.must(h.svc.Close(t.Context()))
	h.must(h.svc.Close(t.Context()))
	if v := h.stored("phi").Versions[0]; v.Operations != 51 || v.Bytes != 255 {
		t.Errorf("after closing: %d operations, %d bytes", v.Operations, v.Bytes)
	}
	_, err = h.tryEncrypt("phi", "x", nil)
	wants(t, err, api.CodeUnavailable)
}

func TestRotationGivesTheRestBack(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.encrypt("phi", "12345", nil)
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	if v := h.stored("phi").Versions[0]; v.Operations != 1 || v.Bytes != 5 {
		t.Errorf("%d operations, %d bytes", v.Operations, v.Bytes)
	}
}

// After a crash the counters are too high by what was reserved, never too low.
func TestCrashCountsTooHigh(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.encrypt("phi", "12345", nil)
	h.svc = New(h.svc.cfg) // the old one is gone without Close
	h.encrypt("phi", "12345", nil)
	h.must(h.svc.Close(t.Context()))
	if v := h.stored("phi").Versions[0]; v.Operations < 2 || v.Operations > blockOperations+1 {
		t.Errorf("%d operations", v.Operations)
	}
}

func TestBlockSizes(t *testing.T) {
	for _, c := range []struct{ size, short, limit, total, want uint64 }{
		{100, 0, 0, 0, 0}, {100, 1, 0, 0, 100}, {100, 500, 0, 0, 500}, {100, 1, 1600, 0, 100}, {100, 1, 800, 0, 50}, {100, 1, 800, 799, 1},
		{100, 1, 800, 900, 1}, {100, 7, 16, 0, 7}, {100, 1, 1 << 63, 1<<63 - 16, 1},
	} {
		if got := block(c.size, c.short, c.limit, c.total); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// The last opening is durable before the answer, and written at most once a minute.
func TestLastOpened(t *testing.T) {
	c := &counted{}
	h := newHouse(t, options{wrap: func(st store.Store) store.Store { c.Store = st; return c }})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	if !h.stored("phi").Versions[0].LastOpened.IsZero() {
		t.Error("sealing counts as opening")
	}
	at := h.clock.Now()
	h.opens("phi", text, "x", nil, 1)
	if got := h.stored("phi").Versions[0].LastOpened; !got.Equal(at) {
		t.Errorf("opened at %v, noted %v", at, got)
	}
	before := c.changes
	h.clock.Add(59 * time.Second)
	h.opens("phi", text, "x", nil, 1)
	if c.changes != before || !h.stored("phi").Versions[0].LastOpened.Equal(at) {
		t.Error("a second opening within a minute was written")
	}
	h.clock.Add(time.Second)
	h.opens("phi", text, "x", nil, 1)
	if got := h.stored("phi").Versions[0].LastOpened; !got.Equal(h.clock.Now()) {
		t.Errorf("an opening a minute later: noted %v", got)
	}
}

// A ciphertext that only looks like one of a version's is no use of it: nobody keeps a version from its destruction by
// sending made-up ones.
func TestForgedCiphertextsAreNoUse(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	forged := []byte(h.encrypt("phi", "value", nil))
	if last := &forged[len(forged)-3]; *last == 'A' {
		*last = 'B'
	} else {
		*last = 'A'
	}
	_, _, err := h.tryDecrypt(owner(), "phi", string(forged), nil)
	wants(t, err, api.CodeIntegrity)
	_, err = h.svc.Rewrap(t.Context(), owner(), "phi", api.RewrapRequest{Ciphertext: string(forged)})
	wants(t, err, api.CodeIntegrity)
	if at := h.stored("phi").Versions[0].LastOpened; !at.IsZero() {
		t.Errorf("it counts as opened at %v", at)
	}
}
