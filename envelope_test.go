package keyturn

import (
	"bytes"
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
	"github.com/keyturn/keyturn/internal/material"
)

// fakeKeys is the part of a server that an Envelope calls, with real ciphertexts.
type fakeKeys struct {
	key      *envelope.Key
	next     *envelope.Key // what Rewrap moves to
	made     atomic.Int32
	opened   atomic.Int32
	fail     atomic.Bool
	entered  chan struct{} // when not nil, told of every call
	released chan struct{} // when not nil, every call waits for it
}

func newFakeKeys(t testing.TB) *fakeKeys {
	t.Helper()
	id := envelope.NewKeyID()
	version := func(n uint32) *envelope.Key {
		k, err := envelope.NewKey(id, n, envelope.SuiteStandard, "phi", material.Random(envelope.KeySize))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return &fakeKeys{key: version(1), next: version(2)}
}

func (f *fakeKeys) gate(ctx context.Context) error {
	if f.entered != nil {
		f.entered <- struct{}{}
	}
	if f.released != nil {
		select {
		case <-f.released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.fail.Load() {
		return &Error{Code: api.CodeUnavailable, Message: "the server is down"}
	}
	return nil
}

func (f *fakeKeys) seal(k *envelope.Key, plain []byte, m map[string]string) (string, error) {
	c, err := envelope.NewContext(m)
	if err != nil {
		return "", err
	}
	blob, err := k.Seal(nil, plain, c)
	return string(envelope.AppendText(nil, blob)), err
}

func (f *fakeKeys) open(text string, m map[string]string) ([]byte, error) {
	c, err := envelope.NewContext(m)
	if err != nil {
		return nil, err
	}
	blob, err := envelope.AppendDecodedText(nil, []byte(text))
	if err != nil {
		return nil, err
	}
	info, err := envelope.Inspect(blob)
	if err != nil {
		return nil, err
	}
	if info.Version == 2 {
		return f.next.Open(nil, blob, c)
	}
	return f.key.Open(nil, blob, c)
}

func (f *fakeKeys) DataKey(ctx context.Context, _ string, in api.DataKeyRequest) (out api.DataKeyResponse, err error) {
	f.made.Add(1)
	if err := f.gate(ctx); err != nil {
		return out, err
	}
	out.Plaintext = bytes.Clone(material.Random(in.Bytes).Expose())
	out.Version = 1
	out.Ciphertext, err = f.seal(f.key, out.Plaintext, in.Context)
	return out, err
}

func (f *fakeKeys) Decrypt(ctx context.Context, _ string, in api.DecryptRequest) (out api.DecryptResponse, err error) {
	f.opened.Add(1)
	if err := f.gate(ctx); err != nil {
		return out, err
	}
	out.Version = 1
	out.Plaintext, err = f.open(in.Ciphertext, in.Context)
	return out, err
}

func (f *fakeKeys) Rewrap(_ context.Context, _ string, in api.RewrapRequest) (out api.RewrapResponse, err error) {
	plain, err := f.open(in.Ciphertext, in.Context)
	if err != nil {
		return out, err
	}
	out.Ciphertext, err = f.seal(f.next, plain, in.Context)
	out.Version, out.FromVersion = 2, 1
	return out, err
}

func envelopeOf(t testing.TB, keys keyService, cfg EnvelopeConfig) *Envelope {
	t.Helper()
	cfg.Key = "phi"
	e, err := newEnvelope(keys, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

var row17 = map[string]string{"table": "patients", "id": "17"}

func mustSeal(t testing.TB, e *Envelope, plain string, bound map[string]string) string {
	t.Helper()
	text, err := e.Seal(context.Background(), []byte(plain), bound)
	if err != nil {
		t.Fatalf("sealing: %v", err)
	}
	return text
}

func TestEnvelopeRoundTrip(t *testing.T) {
	keys := newFakeKeys(t)
	writer, reader := envelopeOf(t, keys, EnvelopeConfig{}), envelopeOf(t, keys, EnvelopeConfig{})
	for _, n := range []int{0, 1, 2, 3, 64, 1024, 100_000} {
		plain := strings.Repeat("x", n)
		text := mustSeal(t, writer, plain, row17)
		if !strings.HasPrefix(text, "kte1.") {
			t.Fatalf("%d bytes: the text begins with %.8s", n, text)
		}
		got, err := reader.Open(context.Background(), text, row17)
		if err != nil || string(got) != plain {
			t.Errorf("%d bytes: got %d bytes, %v", n, len(got), err)
		}
	}
	if keys.made.Load() != 1 || keys.opened.Load() != 1 {
		t.Errorf("asked for %d data keys, had %d opened; want 1 and 1", keys.made.Load(), keys.opened.Load())
	}
}

// TestFrameNamesTheServersKeyVersion: left(column, 37) is a census's business, as left(column, 36) is for kt1.
func TestFrameNamesTheServersKeyVersion(t *testing.T) {
	keys := newFakeKeys(t)
	text := mustSeal(t, envelopeOf(t, keys, EnvelopeConfig{}), "x", nil)
	h, err := envelope.ParsePrefixText("kt1." + text[5:37])
	if err != nil || h != keys.key.Header() {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestEnvelopeOpensNothingElse(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{Context: map[string]string{"tenant": "a"}})
	text := mustSeal(t, e, "x", row17)
	for name, bound := range map[string]map[string]string{
		"another row": {"table": "patients", "id": "18"}, "no context": nil, "more context": {"table": "patients", "id": "17", "x": ""},
	} {
		if _, err := e.Open(ctx, text, bound); CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s: got %v", name, err)
		}
	}
	other := envelopeOf(t, keys, EnvelopeConfig{Context: map[string]string{"tenant": "b"}})
	if _, err := other.Open(ctx, text, row17); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("another tenant: got %v", err)
	}
	stranger := envelopeOf(t, newFakeKeys(t), EnvelopeConfig{Context: map[string]string{"tenant": "a"}})
	if _, err := stranger.Open(ctx, text, row17); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("another key: got %v", err)
	}
	for _, junk := range []string{"", "kte1.", "kte1..", "kte1.a", "kte1.a.", "kt1.a", text + "\n", text + "=", text[:len(text)-1], text[:5] + strings.Repeat("a", 2000) + "."} {
		if _, err := e.Open(ctx, junk, row17); CodeOf(err) != api.CodeIntegrity {
			t.Errorf("junk of %d characters: got %v", len(junk), err)
		}
	}
}

// TestEveryCharacterCounts changes each character of a sealed message in turn.
func TestEveryCharacterCounts(t *testing.T) {
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{})
	text := mustSeal(t, e, "078-05-1120", row17)
	for i := range text {
		b := []byte(text)
		if b[i]++; b[i] == '{' {
			b[i] = 'A'
		}
		if _, err := e.Open(context.Background(), string(b), row17); CodeOf(err) != api.CodeIntegrity {
			t.Fatalf("character %d of %d: got %v", i, len(text), err)
		}
	}
}

// TestADataKeyOfAnotherKindIsNoDataKey: what was sealed under the same key for another purpose can't be made into one.
func TestADataKeyOfAnotherKindIsNoDataKey(t *testing.T) {
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{})
	text := mustSeal(t, e, "x", nil)
	plain, err := keys.seal(keys.key, make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(text[5:], ".")
	if _, err := e.Open(context.Background(), "kte1."+plain[4:]+"."+body, nil); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("got %v", err)
	}
	short, err := keys.seal(keys.key, make([]byte, 16), map[string]string{reserved: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(context.Background(), "kte1."+short[4:]+"."+body, nil); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a data key of 16 bytes: got %v", err)
	}
}

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

func TestEnvelopeRewrap(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{Context: map[string]string{"tenant": "a"}})
	text := mustSeal(t, e, "x", row17)
	moved, err := e.Rewrap(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	h, err := envelope.ParsePrefixText("kt1." + moved[5:37])
	if err != nil || h.Version != 2 {
		t.Errorf("stands under %+v, %v", h, err)
	}
	if got, err := e.Open(ctx, moved, row17); err != nil || string(got) != "x" {
		t.Errorf("opening what was rewrapped: %v", err)
	}
	if _, err := e.Open(ctx, moved, nil); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("another context after rewrap: %v", err)
	}
	if _, err := e.Rewrap(ctx, "kt1.abc"); CodeOf(err) != api.CodeIntegrity {
		t.Errorf("rewrapping junk: %v", err)
	}
}

// TestEnvelopeConcurrently seals and opens while data keys run out and are evicted all the time.
func TestEnvelopeConcurrently(t *testing.T) {
	ctx := context.Background()
	keys := newFakeKeys(t)
	e := envelopeOf(t, keys, EnvelopeConfig{MaxMessages: 7, CacheSize: 2})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				plain := fmt.Sprintf("%d/%d", w, i)
				text, err := e.Seal(ctx, []byte(plain), row17)
				if err != nil {
					t.Errorf("sealing: %v", err)
					return
				}
				got, err := e.Open(ctx, text, row17)
				if err != nil || string(got) != plain {
					t.Errorf("opening: %q, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if made := keys.made.Load(); made < 800/7 {
		t.Errorf("%d data keys for 800 messages at 7 each", made)
	}
}

func TestEnvelopeConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]EnvelopeConfig{
		"no key": {}, "negative age": {Key: "phi", MaxAge: -1}, "negative cache": {Key: "phi", CacheSize: -1},
		"reserved context": {Key: "phi", Context: map[string]string{reserved: "2"}},
	} {
		if _, err := newEnvelope(newFakeKeys(t), cfg); CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	e := envelopeOf(t, newFakeKeys(t), EnvelopeConfig{})
	if _, err := e.Seal(context.Background(), nil, map[string]string{"a": "\xff"}); CodeOf(err) != api.CodeInvalid {
		t.Errorf("a context that isn't UTF-8: %v", err)
	}
	if _, err := e.Seal(context.Background(), nil, map[string]string{"a": strings.Repeat("x", 9<<10)}); CodeOf(err) != api.CodeInvalid {
		t.Errorf("a context over 8 KiB: %v", err)
	}
}
