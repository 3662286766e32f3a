package kms

import (
	"context"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/gate"
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
