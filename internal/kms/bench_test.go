package kms

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// unrecorded lets everything pass, so that what is measured is this room's own share of a call.
type unrecorded struct{ Doorway }

func (unrecorded) Use(ctx context.Context, _ *access.Caller, _ gate.Intent, run func(context.Context, *audit.Event) error) error {
	var ev audit.Event
	return run(ctx, &ev)
}

func benchHouse(b *testing.B) (*house, envelope.Context) {
	h := newHouse(b, options{door: func(real Doorway) Doorway { return unrecorded{real} }})
	if _, err := h.svc.Create(b.Context(), owner(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		b.Fatal(err)
	}
	bound, err := envelope.NewContext(map[string]string{"patient": "17"})
	if err != nil {
		b.Fatal(err)
	}
	return h, bound
}

func BenchmarkEncrypt(b *testing.B) {
	h, bound := benchHouse(b)
	c, plain, buf := owner(), make([]byte, 64), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := h.svc.Encrypt(b.Context(), c, "phi", plain, bound, `{"patient":"17"}`, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	h, bound := benchHouse(b)
	c, buf := owner(), make([]byte, 0, 1024)
	text, _, err := h.svc.Encrypt(b.Context(), c, "phi", make([]byte, 64), bound, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := h.svc.Decrypt(b.Context(), c, "phi", text, bound, `{"patient":"17"}`, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSeal is the primitive that Encrypt calls: what Encrypt costs beyond it is lookup, counters and closures.
func BenchmarkSeal(b *testing.B) {
	h, bound := benchHouse(b)
	k := h.stored("phi")
	key, err := h.ring.Version(b.Context(), &k, 1)
	if err != nil {
		b.Fatal(err)
	}
	plain, buf, text := make([]byte, 64), make([]byte, 0, 1024), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		blob, err := key.Seal(buf, plain, bound)
		if err != nil {
			b.Fatal(err)
		}
		envelope.AppendText(text, blob)
	}
}

func BenchmarkEncryptBatch100(b *testing.B) {
	h, _ := benchHouse(b)
	in := api.EncryptBatchRequest{Items: make([]api.EncryptRequest, 100)}
	for i := range in.Items {
		in.Items[i] = api.EncryptRequest{Plaintext: make([]byte, 64), Context: map[string]string{"patient": "17"}}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.svc.EncryptBatch(b.Context(), owner(), "phi", in); err != nil {
			b.Fatal(err)
		}
	}
}

// What the doctor's walk over the keys costs: each is checked and each version opened. A thousand keys of two versions.
func BenchmarkDoctorKeys(b *testing.B) {
	h := newHouse(b, options{})
	for i := range 1000 {
		name := fmt.Sprintf("k%04d", i)
		h.create(api.CreateKeyRequest{Name: name})
		_, err := h.svc.Rotate(b.Context(), owner(), name, api.RotateKeyRequest{})
		h.must(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ok, detail, _ := h.svc.checkKeys(b.Context()); !ok {
			b.Fatal(detail)
		}
	}
}

// BenchmarkMasterRotate is what `keyturn master rotate` costs where the provider is local and 10,000 wrappings are made anew: goal
// below a second. It opens each, wraps it, commits them all in one transaction with the event, and opens them again.
func BenchmarkMasterRotate(b *testing.B) {
	h := newHouse(b, options{})
	records, err := Directory{h.st}.KEKs(b.Context())
	h.must(err)
	src := &keyringtest.Source{}
	src.PutKEKs(records...)
	ring := keyring.New(h.st.ID(), h.ring.Masters(), src)
	for range 10_000/len(keys.KEKPurposes()) - 1 {
		made, err := ring.NewKEKs(b.Context(), keys.KEKPurposes())
		h.must(err)
		src.PutKEKs(made...)
	}
	records, err = src.KEKs(b.Context())
	h.must(err)
	slices.SortFunc(records, func(x, y keys.KEK) int { return cmp.Compare(x.Version, y.Version) }) // the old active ones first
	h.must(h.st.Change(b.Context(), func(tx store.Tx) error { return tx.PutKEKs(b.Context(), records...) }))
	h.must(h.ring.Open(b.Context()))
	for b.Loop() {
		out, err := h.svc.RotateMasters(b.Context(), owner(), api.RotateMasterRequest{})
		h.must(err)
		if out.Rewrapped < 10_000 {
			b.Fatalf("%d wrappings", out.Rewrapped)
		}
	}
}
