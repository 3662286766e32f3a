package keyturn

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
)

func TestDataKeyLimits(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		keys := newFakeKeys(t)
		e := envelopeOf(t, keys, EnvelopeConfig{MaxMessages: 10})
		for i := range 35 {
			mustSeal(t, e, "x", nil)
			if want := int32(i/10 + 1); keys.made.Load() != want {
				t.Fatalf("after %d messages %d data keys, want %d", i+1, keys.made.Load(), want)
			}
		}
	})
	t.Run("bytes", func(t *testing.T) {
		keys := newFakeKeys(t)
		e := envelopeOf(t, keys, EnvelopeConfig{MaxBytes: 100})
		for range 6 { // 3 fit into one data key
			mustSeal(t, e, strings.Repeat("x", 30), nil)
		}
		if keys.made.Load() != 2 {
			t.Errorf("%d data keys, want 2", keys.made.Load())
		}
		mustSeal(t, e, strings.Repeat("x", 1000), nil)
		mustSeal(t, e, "x", nil)
		if keys.made.Load() != 4 {
			t.Errorf("a message over the limit must have a data key to itself: %d data keys, want 4", keys.made.Load())
		}
	})
	t.Run("age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			keys := newFakeKeys(t)
			e := envelopeOf(t, keys, EnvelopeConfig{MaxAge: time.Minute})
			text := mustSeal(t, e, "x", nil)
			first := e.current.now.Load()
			if _, err := e.Open(context.Background(), text, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute - time.Nanosecond) // of synctest's clock
			mustSeal(t, e, "x", nil)
			if keys.made.Load() != 1 {
				t.Errorf("a data key was replaced before its age")
			}
			time.Sleep(2 * time.Nanosecond)
			synctest.Wait()
			if _, err := first.key.Seal(nil, nil, nil); !errors.Is(err, envelope.ErrDestroyed) {
				t.Errorf("an idle data key outlived its age: %v", err)
			}
			mustSeal(t, e, "x", nil)
			if _, err := e.Open(context.Background(), text, nil); err != nil || keys.made.Load() != 2 || keys.opened.Load() != 2 {
				t.Errorf("after the age: %v, %d made, %d opened", err, keys.made.Load(), keys.opened.Load())
			}
		})
	})
}

// TestOneFetchForMany: however many wait, the server is asked once.
func TestOneFetchForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		keys := newFakeKeys(t)
		text := mustSeal(t, envelopeOf(t, keys, EnvelopeConfig{}), "x", nil)
		keys.made.Store(0)
		keys.released = make(chan struct{})
		e := envelopeOf(t, keys, EnvelopeConfig{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := e.Seal(ctx, []byte("x"), nil); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := e.Open(ctx, text, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(keys.released)
		wg.Wait()
		if keys.made.Load() != 1 || keys.opened.Load() != 1 {
			t.Errorf("asked for %d data keys, had %d opened", keys.made.Load(), keys.opened.Load())
		}
	})
}

// TestOneCallerGivingUpDoesntHurtOthers: the fetch goes on, and who waits longer has it.
func TestOneCallerGivingUpDoesntHurtOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys(t)
		keys.released = make(chan struct{})
		e := envelopeOf(t, keys, EnvelopeConfig{})
		ctx, cancel := context.WithCancel(context.Background())
		impatient, patient := make(chan error, 1), make(chan error, 1)
		go func() { _, err := e.Seal(ctx, nil, nil); impatient <- err }()
		synctest.Wait()
		go func() { _, err := e.Seal(context.Background(), nil, nil); patient <- err }()
		synctest.Wait()
		cancel()
		if err := <-impatient; CodeOf(err) != api.CodeCancelled {
			t.Errorf("the impatient caller: %v", err)
		}
		close(keys.released)
		if err := <-patient; err != nil || keys.made.Load() != 1 {
			t.Errorf("the patient caller: %v after %d fetches", err, keys.made.Load())
		}
	})
}

// TestOutage: promise P10; without a data key nothing is sealed or opened, what is cached goes on, failures aren't kept.
func TestOutage(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	text := mustSeal(t, envelopeOf(t, keys, EnvelopeConfig{}), "x", nil)
	e := envelopeOf(t, keys, EnvelopeConfig{})
	keys.fail.Store(true)
	if _, err := e.Seal(ctx, nil, nil); CodeOf(err) != api.CodeUnavailable {
		t.Errorf("sealing: %v", err)
	}
	if _, err := e.Open(ctx, text, nil); CodeOf(err) != api.CodeUnavailable {
		t.Errorf("opening: %v", err)
	}
	keys.fail.Store(false)
	mustSeal(t, e, "x", nil)
	if _, err := e.Open(ctx, text, nil); err != nil {
		t.Errorf("opening after the outage: %v", err)
	}
	keys.fail.Store(true)
	mustSeal(t, e, "x", nil)
	if _, err := e.Open(ctx, text, nil); err != nil {
		t.Errorf("opening under a cached data key: %v", err)
	}
}

func TestOpenedKeysAreBounded(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	writer := envelopeOf(t, keys, EnvelopeConfig{MaxMessages: 1})
	var texts [4]string
	for i := range texts {
		texts[i] = mustSeal(t, writer, "x", nil)
	}
	e := envelopeOf(t, keys, EnvelopeConfig{CacheSize: 2})
	read := func(i int) {
		t.Helper()
		if _, err := e.Open(ctx, texts[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	read(0)
	read(1)
	first := e.opened.recent.Back().Value.(*opener).key
	read(2) // 0 goes
	if _, err := first.Seal(nil, nil, nil); !errors.Is(err, envelope.ErrDestroyed) {
		t.Errorf("the evicted key lives: %v", err)
	}
	read(1) // cached, now the last used
	read(3) // 2 goes
	read(1) // cached
	if got := keys.opened.Load(); got != 4 || e.opened.recent.Len() != 2 || len(e.opened.entries) != 2 {
		t.Errorf("%d fetches, %d kept; want 4 and 2", got, e.opened.recent.Len())
	}
}

func TestClose(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{})
	text := mustSeal(t, e, "x", nil)
	if _, err := e.Open(ctx, text, nil); err != nil {
		t.Fatal(err)
	}
	sealing, opening := e.current.now.Load().key, e.opened.recent.Front().Value.(*opener).key
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, k := range map[string]*envelope.Key{"sealing": sealing, "opening": opening} {
		if _, err := k.Seal(nil, nil, nil); !errors.Is(err, envelope.ErrDestroyed) {
			t.Errorf("the %s key lives after Close: %v", name, err)
		}
	}
	if _, err := e.Seal(ctx, nil, nil); CodeOf(err) != api.CodeWrongState {
		t.Errorf("sealing after Close: %v", err)
	}
	if _, err := e.Open(ctx, text, nil); CodeOf(err) != api.CodeWrongState {
		t.Errorf("opening after Close: %v", err)
	}
}

// TestCloseDuringAFetch: a data key that arrives after Close is destroyed, not published.
func TestCloseDuringAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys(t)
		text := mustSeal(t, envelopeOf(t, keys, EnvelopeConfig{}), "x", nil)
		keys.released = make(chan struct{})
		e := envelopeOf(t, keys, EnvelopeConfig{})
		results := make(chan error, 2)
		go func() { _, err := e.Seal(context.Background(), nil, nil); results <- err }()
		go func() { _, err := e.Open(context.Background(), text, nil); results <- err }()
		synctest.Wait()
		e.Close()
		close(keys.released)
		for range 2 {
			if err := <-results; CodeOf(err) != api.CodeWrongState {
				t.Errorf("got %v", err)
			}
		}
		if e.current.now.Load() != nil || len(e.opened.entries) != 0 {
			t.Error("a data key was kept")
		}
	})
}
