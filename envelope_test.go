package keyturn

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
