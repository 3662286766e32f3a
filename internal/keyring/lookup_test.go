package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
)

// Metadata is read once, by name and id alike, and again after a drop or when it is old.
func TestLookupCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &keyringtest.Source{}
		ring := keyringtest.NewRing(t, src)
		key := keyringtest.NewKey(t, ring, src, "phi")
		reads := func() int { return src.Reads("name phi") + src.Reads("id "+key.ID.String()) }
		expect := func(when string, want int) {
			t.Helper()
			byName, err1 := ring.Lookup(t.Context(), "phi")
			byID, err2 := ring.LookupID(t.Context(), key.ID)
			if err1 != nil || err2 != nil || byName != byID || byName.ID != key.ID || reads() != want {
				t.Fatalf("%s: %d reads, want %d; %v %v", when, reads(), want, err1, err2)
			}
		}
		expect("first", 1)
		expect("again", 1)
		time.Sleep(4 * time.Second) // virtual time
		expect("young enough", 1)
		time.Sleep(time.Second)
		expect("old", 2)
		generation := ring.Generation()
		ring.Drop(key.ID)
		if ring.Generation() <= generation {
			t.Error("dropping didn't move the generation")
		}
		expect("dropped", 3)
		ring.DropAll()
		expect("all dropped", 4)
		ring.Drop(envelope.NewKeyID())
		expect("another key dropped", 4)
	})
}

// Many callers at once cost one read; one who goes away takes nobody along.
func TestLookupIsSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		src := &keyringtest.Source{}
		ring := keyringtest.NewRing(t, src)
		key := keyringtest.NewKey(t, ring, src, "phi")
		src.Before = func(ctx context.Context, what string) error {
			if strings.HasPrefix(what, "name") {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return ctx.Err()
		}
		impatient, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := ring.Lookup(impatient, "phi"); fault.CodeOf(err) != api.CodeCancelled {
				t.Errorf("the caller who went away: %v", err)
			}
		})
		synctest.Wait() // the impatient one has begun the read
		for range 50 {
			wg.Go(func() {
				if k, err := ring.Lookup(t.Context(), "phi"); err != nil || k.ID != key.ID {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := src.Reads("name phi"); n != 1 {
			t.Errorf("%d reads for 51 callers", n)
		}
	})
}

// What was read before a drop is not kept after it, and nobody who asks after the drop is given it: not even by joining
// a read that began before.
func TestDropOutrunsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &keyringtest.Source{}
		ring := keyringtest.NewRing(t, src)
		key := keyringtest.NewKey(t, ring, src, "phi")
		slow := make(chan struct{})
		var reads atomic.Int32
		src.Before = func(_ context.Context, what string) error {
			if what == "name phi" && reads.Add(1) == 1 {
				<-slow
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = ring.Lookup(t.Context(), "phi") })
		synctest.Wait() // the first read hangs
		keyringtest.Rotate(t, ring, src, &key)
		k, err := ring.Lookup(t.Context(), "phi") // would wait for ever if it joined the first read
		if err != nil || len(k.Versions) != 2 {
			t.Errorf("after the drop: %+v, %v", k, err)
		}
		close(slow)
		wg.Wait()
		if k, err := ring.Lookup(t.Context(), "phi"); err != nil || len(k.Versions) != 2 {
			t.Errorf("after the slow read came back: %d versions, %v", len(k.Versions), err)
		}
	})
}

// Failures are not kept: what isn't there now may be there in a moment, and a store that was away comes back.
func TestLookupKeepsNoFailure(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	if _, err := ring.Lookup(t.Context(), "phi"); fault.CodeOf(err) != api.CodeNotFound {
		t.Fatal(err)
	}
	away := true
	src.Before = func(context.Context, string) error {
		if away {
			return fault.New(api.CodeUnavailable, "reading")
		}
		return nil
	}
	if _, err := ring.Lookup(t.Context(), "phi"); fault.CodeOf(err) != api.CodeUnavailable {
		t.Fatal(err)
	}
	away = false
	keyringtest.NewKey(t, ring, src, "phi")
	if _, err := ring.Lookup(t.Context(), "phi"); err != nil {
		t.Error(err)
	}
}

// CVE-2026-33729 and others (row 79): cache keys that are glued together collide. Names that contain one another, look
// like ids or end where the next begins each find their own key; and an unknown name finds none.
func TestAdvisory_CVE_2026_33729(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	want := map[string]envelope.KeyID{}
	add := func(name string) {
		k, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: name}, now)
		if err != nil {
			t.Fatal(err)
		}
		src.PutKey(k)
		want[name] = k.ID
	}
	for i := range 1000 {
		add(fmt.Sprint("a", i))
		add(fmt.Sprint("a", i, ".", i))
		add(fmt.Sprint("a", i/10, "-", i))
	}
	add(want["a1"].String())
	for range 2 { // from the store, then from the cache
		for name, id := range want {
			k, err := ring.Lookup(t.Context(), name)
			if err != nil || k.ID != id || k.Name != name {
				t.Fatalf("%s found %s, %v", name, k.Name, err)
			}
			if k, err := ring.LookupID(t.Context(), id); err != nil || k.Name != name {
				t.Fatalf("the id of %s found %s, %v", name, k.Name, err)
			}
		}
	}
	for _, name := range []string{"", "a", "A1", "a1 ", "a1\x00", "a1.", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if k, err := ring.Lookup(t.Context(), name); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%q found %v, %v", name, k, err)
		}
	}
}

// Start-up doesn't grow with the number of keys: opening reads the KEKs and no key at all; a version is unwrapped at its
// first use, once for all who ask.
func TestOpenIsLazy(t *testing.T) {
	src := &keyringtest.Source{Before: func(_ context.Context, what string) error {
		if what != "keks" {
			return errors.New("a key was read")
		}
		return nil
	}}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	var wg sync.WaitGroup
	got := make([]*envelope.Key, 50)
	for i := range got {
		wg.Go(func() { got[i], _ = ring.Version(t.Context(), &key, 1) })
	}
	wg.Wait()
	for _, k := range got {
		if k == nil {
			t.Fatal("a version didn't load")
		}
	}
	if again, err := ring.Version(t.Context(), &key, 1); err != nil || src.Reads("keks") != 2 { // NewKEKs and Open
		t.Errorf("%v, %v; KEKs were read %d times", again, err, src.Reads("keks"))
	}
}

// A dropped version is unwrapped anew; whoever holds the old one finishes under it; Close ends both.
func TestDropAndClose(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	first, err := ring.Version(t.Context(), &key, 1)
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := ring.Version(t.Context(), &key, 1); same != first {
		t.Error("not cached")
	}
	ring.Drop(key.ID)
	reloaded, err := ring.Version(t.Context(), &key, 1)
	if err != nil || reloaded == first {
		t.Errorf("not dropped: %v", err)
	}
	if _, err := first.Seal(nil, nil, nil); err != nil {
		t.Errorf("a message in flight: %v", err)
	}
	for range 2 {
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := reloaded.Seal(nil, nil, nil); !errors.Is(err, envelope.ErrDestroyed) {
		t.Errorf("after closing: %v", err)
	}
	for name, err := range map[string]error{
		"Version": second(ring.Version(t.Context(), &key, 1)), "Open": ring.Open(t.Context()),
		"Seal": second(ring.Seal(t.Context(), keys.KEKSecrets, keyring.Binding{}, nil)),
	} {
		if fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("%s after closing: %v", name, err)
		}
	}
}
