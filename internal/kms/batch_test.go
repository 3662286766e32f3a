package kms

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
)

func TestBatches(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	var in api.EncryptBatchRequest
	for i := range 100 {
		in.Items = append(in.Items, api.EncryptRequest{Plaintext: fmt.Appendf(nil, "plaintext-%d", i), Context: map[string]string{"row": fmt.Sprint(i), "table": "t"}})
	}
	in.Items[7].Context = map[string]string{"row": strings.Repeat("x", 9000)}
	in.Items[8].Plaintext = make([]byte, api.MaxPlaintext+1)
	sealed, err := h.svc.EncryptBatch(t.Context(), owner(), "phi", in)
	h.must(err)
	before := len(h.events())
	if e := h.lastEvent(); e.Action != "encrypt_batch" || e.Version != 1 || e.Details["items"] != 100.0 || e.Details["failed"] != 2.0 || strings.Contains(e.raw, "plaintext-") {
		t.Errorf("%s", e.raw)
	}
	var open api.DecryptBatchRequest
	for i, item := range sealed.Items {
		if bad := i == 7 || i == 8; bad != (item.Error != nil) {
			t.Fatalf("item %d: %+v", i, item.Error)
		}
		open.Items = append(open.Items, api.DecryptRequest{Ciphertext: item.Ciphertext, Context: in.Items[i].Context})
	}
	if sealed.Items[7].Error.Code != api.CodeInvalid || sealed.Items[8].Error.Code != api.CodeTooLarge {
		t.Errorf("%+v, %+v", sealed.Items[7].Error, sealed.Items[8].Error)
	}
	open.Items[3].Context = open.Items[4].Context // a ciphertext that was moved to another row
	opened, err := h.svc.DecryptBatch(t.Context(), owner(), "phi", open)
	h.must(err)
	for i, item := range opened.Items {
		switch i {
		case 3, 8:
			if item.Error == nil || item.Error.Code != api.CodeIntegrity || item.Plaintext != nil {
				t.Errorf("item %d: %+v", i, item)
			}
		case 7:
			if item.Error == nil || item.Error.Code != api.CodeInvalid {
				t.Errorf("item %d: %+v", i, item)
			}
		default:
			if item.Error != nil || string(item.Plaintext) != fmt.Sprintf("plaintext-%d", i) || item.Version != 1 {
				t.Errorf("item %d: %q, %+v", i, item.Plaintext, item.Error)
			}
		}
	}
	if n := len(h.events()) - before; n != 1 {
		t.Errorf("%d events for one batch", n)
	}
}

func TestRewrapBatch(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	old := h.encrypt("phi", "a", nil)
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	current := h.encrypt("phi", "b", nil)
	in := api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: old}, {Ciphertext: current}, {Ciphertext: "junk"}, {Ciphertext: old, Context: map[string]string{"x": ""}}}}
	out, err := h.svc.RewrapBatch(t.Context(), as(access.RoleKeyAdministrator), "phi", in)
	h.must(err)
	if out.Items[0].Version != 2 || out.Items[0].FromVersion != 1 || out.Items[1].Ciphertext != current || out.Items[2].Error == nil || out.Items[3].Error == nil {
		t.Errorf("%+v", out.Items)
	}
	h.opens("phi", out.Items[0].Ciphertext, "a", nil, 2)
	for _, e := range h.events() {
		if e.Action == "rewrap_batch" && (e.Details["changed"] != 1.0 || e.Details["failed"] != 2.0) {
			t.Errorf("%s", e.raw)
		}
	}
}

// Rights are looked at for each item: a compromised version among others needs its permission, in every kind of batch.
func TestAdvisory_CVE_2025_64751_eachItemOfABatch(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	leaked := h.encrypt("phi", "leaked", nil)
	_, err := h.svc.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{})
	h.must(err)
	fine := h.encrypt("phi", "fine", nil)
	app := as(access.RoleApplication)
	opened, err := h.svc.DecryptBatch(t.Context(), app, "phi", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: fine}, {Ciphertext: leaked}}})
	h.must(err)
	if string(opened.Items[0].Plaintext) != "fine" || opened.Items[1].Error == nil || opened.Items[1].Error.Code != api.CodeDenied || opened.Items[1].Plaintext != nil {
		t.Errorf("%+v", opened.Items)
	}
	moved, err := h.svc.RewrapBatch(t.Context(), app, "phi", api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: fine}, {Ciphertext: leaked}}})
	h.must(err)
	if moved.Items[0].Error != nil || moved.Items[1].Error == nil || moved.Items[1].Error.Code != api.CodeDenied {
		t.Errorf("%+v", moved.Items)
	}
}

func TestBatchSizes(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.svc.EncryptBatch(t.Context(), owner(), "phi", api.EncryptBatchRequest{})
	wants(t, err, api.CodeInvalid, "items")
	_, err = h.svc.EncryptBatch(t.Context(), owner(), "phi", api.EncryptBatchRequest{Items: make([]api.EncryptRequest, api.MaxBatchItems+1)})
	wants(t, err, api.CodeTooLarge, "items")
	_, err = h.svc.DecryptBatch(t.Context(), owner(), "absent", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: h.encrypt("phi", "x", nil)}}})
	wants(t, err, api.CodeNotFound)
}

// Under a key without an active version a batch that protects ends with the key's own error, as a single request does.
func TestBatchUnderAKeyThatProtectsNothing(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	_, err := h.svc.Disable(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1})
	h.must(err)
	_, err = h.svc.EncryptBatch(t.Context(), owner(), "phi", api.EncryptBatchRequest{Items: []api.EncryptRequest{{Plaintext: []byte("x")}, {Plaintext: []byte("y")}}})
	wants(t, err, api.CodeWrongState)
	_, err = h.svc.RewrapBatch(t.Context(), owner(), "phi", api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: text}}})
	wants(t, err, api.CodeWrongState)
	out, err := h.svc.DecryptBatch(t.Context(), owner(), "phi", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: text}}})
	if err != nil || string(out.Items[0].Plaintext) != "x" {
		t.Errorf("opening goes on: %+v %v", out, err)
	}
}
