package kms

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

// requests is every request type of this room.
var requests = []any{
	api.CreateKeyRequest{}, api.RotateKeyRequest{}, api.VersionStateRequest{}, api.EncryptRequest{}, api.DecryptRequest{}, api.RewrapRequest{},
	api.EncryptBatchRequest{}, api.DecryptBatchRequest{}, api.RewrapBatchRequest{}, api.DataKeyRequest{}, api.DeriveRequest{},
	api.ImportKeyRequest{}, api.ExportKeyRequest{}, api.InspectRequest{}, api.MasterKeyRequest{}, api.RotateMasterRequest{}, api.CreatePrincipalRequest{},
}

// No request lets anybody choose a nonce, an initialisation vector, a salt or a tag.
func TestAdvisory_CVE_2023_4680_requests(t *testing.T) {
	for _, r := range requests {
		for f := range reflect.TypeOf(r).Fields() {
			name := strings.ToLower(f.Name + " " + f.Tag.Get("json"))
			for _, forbidden := range []string{"nonce", "iv", "salt", "tag", "seed", "counter"} {
				if slices.Contains(strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == ',' }), forbidden) {
					t.Errorf("%T has a field %s", r, f.Name)
				}
			}
		}
	}
}

// Wrong values of every text field of every request: the error names the field, never the value.
func TestAdvisory_CVE_2025_4166_services(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	const canary = "Canary 078-05-1120"
	ctx, c := t.Context(), owner()
	for what, err := range map[string]error{
		"create name":      second(h.svc.Create(ctx, c, api.CreateKeyRequest{Name: canary})),
		"create purpose":   second(h.svc.Create(ctx, c, api.CreateKeyRequest{Name: "x", Purpose: canary})),
		"create algorithm": second(h.svc.Create(ctx, c, api.CreateKeyRequest{Name: "x", Algorithm: canary})),
		"create period":    second(h.svc.Create(ctx, c, api.CreateKeyRequest{Name: "x", Period: canary})),
		"rotate key":       second(h.svc.Rotate(ctx, c, canary, api.RotateKeyRequest{})),
		"decrypt":          second(h.svc.DecryptBatch(ctx, c, canary, api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: canary}}})),
		"rewrap":           second(h.svc.Rewrap(ctx, c, "phi", api.RewrapRequest{Ciphertext: canary})),
		"inspect":          second(h.svc.Inspect(ctx, c, api.InspectRequest{Ciphertext: canary})),
		"derive label":     second(h.svc.Derive(ctx, c, "phi", api.DeriveRequest{Label: canary + strings.Repeat("x", 200)})),
		"import material":  second(h.svc.Import(ctx, c, "phi", api.ImportKeyRequest{Material: []byte(canary)})),
		"import purpose":   second(h.svc.Import(ctx, c, "phi", api.ImportKeyRequest{Material: []byte("0123456789abcdefghijklmnopqrstuv"), Purpose: canary})),
		"master url":       second(h.svc.AddMaster(ctx, c, api.MasterKeyRequest{URL: canary})),
		"master removed":   second(h.svc.RemoveMaster(ctx, c, api.MasterKeyRequest{URL: canary})),
		"principal name":   second(h.svc.CreatePrincipal(ctx, c, api.CreatePrincipalRequest{Name: canary, Role: "auditor"})),
		"principal role":   second(h.svc.CreatePrincipal(ctx, c, api.CreatePrincipalRequest{Name: "x", Role: canary})),
		"principal scope":  second(h.svc.CreatePrincipal(ctx, c, api.CreatePrincipalRequest{Name: "x", Role: "auditor", Scope: []string{canary}})),
		"principal allow":  second(h.svc.CreatePrincipal(ctx, c, api.CreatePrincipalRequest{Name: "x", Role: "auditor", Allow: []string{canary}})),
		"role":             second(h.svc.Role(ctx, c, canary)),
		"context":          second(h.svc.DataKey(ctx, c, "phi", api.DataKeyRequest{Context: map[string]string{"x": canary + "\xff"}})),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(fmt.Sprintf("%v %s", e, fault.NextOf(e)), "078-05") {
				t.Errorf("%s: the error shows the value: %v", what, e)
			}
		}
		if code := fault.CodeOf(err); code == api.CodeInternal || fault.FieldOf(err) == "" {
			t.Errorf("%s: %s without a field: %v", what, code, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A destruction that fails at any operation of the store leaves the version fully there or fully gone, and doing it again
// ends it; what an answer said holds.
func TestAdvisory_CVE_2026_42186_destroy(t *testing.T) {
	storetest.Sweep(t, func(t *testing.T, p *storetest.Plan) {
		h := newHouse(t, options{})
		text := destroyable(h)
		faulty := storetest.Faulty(h.raw(), p)
		h.must(h.gate.Close(t.Context()))
		broken := h.over(faulty)
		_, scheduled := broken.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
		state := h.stored("phi").Versions[0].State
		if scheduled == nil && state != keys.DestroyScheduled {
			t.Errorf("answered as scheduled, and it is %s", state)
		}
		h.clock.Add(7 * 24 * time.Hour)
		n, _ := broken.RunDue(t.Context())
		k := h.stored("phi")
		v := k.Versions[0]
		if gone := v.State == keys.Destroyed; gone != (v.Wrapped == nil) || n > 0 && !gone {
			t.Fatalf("half destroyed: %s with %d bytes of material, %d answered", v.State, len(v.Wrapped), n)
		}
		if v.State != keys.Destroyed {
			if _, err := h.ring.Export(t.Context(), &k, 1); err != nil {
				t.Errorf("a version that is %s doesn't unwrap: %v", v.State, err)
			}
		}

		// Somebody sound comes after the failure and does it again.
		again := h.over(h.raw())
		h.must(again.Start(t.Context()))
		if v.State == keys.Deactivated {
			_, err := again.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
			h.must(err)
		}
		h.must(again.WatchClock(t.Context())) // what the failure kept from being written down counts as time in which nobody ran
		h.clock.Add(7 * 24 * time.Hour)
		if _, err := again.RunDue(t.Context()); err != nil {
			t.Errorf("doing it again: %v", err)
		}
		if v := h.stored("phi").Versions[0]; v.State != keys.Destroyed || v.Wrapped != nil {
			t.Errorf("after doing it again: %s", v.State)
		}
		if len(h.graves.list) != 1 {
			t.Errorf("tombstones: %+v", h.graves.list)
		}
		_, _, err := again.Decrypt(t.Context(), owner(), "phi", []byte(text), nil, "", nil)
		wants(t, err, api.CodeWrongState)
	})
}

// Every method refuses everybody whom its action isn't given to, and nobody else: the matrix of roles, by calling.
func TestAdvisory_CVE_2021_42135_methods(t *testing.T) {
	actions := map[string]access.Action{
		"show": access.KeyRead, "create": access.KeyCreate, "rotate": access.KeyRotate, "suspend": access.KeyState, "resume": access.KeyState,
		"disable": access.KeyState, "compromise": access.KeyCompromise, "destroy": access.KeyDestroy, "undestroy": access.KeyDestroy,
		"import": access.KeyImport, "export": access.KeyExport, "encrypt": access.KeyEncrypt, "decrypt": access.KeyDecrypt, "rewrap": access.KeyRewrap,
		"datakey": access.KeyDataKey, "derive": access.KeyDerive, "encrypt batch": access.KeyEncrypt, "decrypt batch": access.KeyDecrypt,
		"rewrap batch": access.KeyRewrap,
	}
	for verb := range verbs(nil, "") {
		action, ok := actions[verb]
		if !ok {
			t.Errorf("%s is not in the list", verb)
		}
		h := newHouse(t, options{})
		h.create(api.CreateKeyRequest{Name: "phi"})
		text := h.encrypt("phi", "x", nil)
		for _, role := range access.Roles() {
			denied := fault.CodeOf(verbs(h, text)[verb](as(role.Name), "phi")) == api.CodeDenied
			want := !slices.Contains(role.Actions, action)
			if verb == "import" { // into a key that exists: only for who may use that key too
				want = want || !slices.Contains(role.Actions, access.KeyEncrypt) || !slices.Contains(role.Actions, access.KeyDecrypt)
			}
			if denied != want {
				t.Errorf("%s by %s: denied %v, want %v", verb, role.Name, denied, want)
			}
		}
	}
}
