package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

// deaf is a doorway that lets everything be done and can record none of it.
type deaf struct {
	Doorway
	broken bool
	did    int // how often work was done that couldn't be recorded
}

var errDeaf = fault.New(api.CodeUnavailable, "recording an event")

func (d *deaf) Use(ctx context.Context, c *access.Caller, in gate.Intent, run func(context.Context, *audit.Event) error) error {
	if !d.broken {
		return d.Doorway.Use(ctx, c, in, run)
	}
	if run(ctx, &audit.Event{}) == nil {
		d.did++
	}
	return errDeaf
}

func (d *deaf) Change(ctx context.Context, c *access.Caller, in gate.Intent, change gate.ChangeFunc) error {
	if !d.broken {
		return d.Doorway.Change(ctx, c, in, change)
	}
	return d.Doorway.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		if err := change(ctx, tx, ev); err != nil {
			return err
		}
		d.did++
		return errDeaf
	})
}

// P2 and P10: when the record can't be written, nothing leaves. Every method answers "unavailable" and an empty answer,
// although the work was done; a buffer that was handed in holds no plaintext.
func TestP2NothingLeavesWithoutItsRecord(t *testing.T) {
	d := &deaf{}
	h := newHouse(t, options{door: func(real Doorway) Doorway { d.Doorway = real; return d }})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "078-05-1120", nil)
	_, err := h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	h.must(err)
	before := h.stored("phi")
	d.broken = true

	ctx, c := t.Context(), owner()
	buf := make([]byte, 0, 4096)
	out, version, err := h.svc.Decrypt(ctx, c, "phi", []byte(text), nil, "", buf)
	wants(t, err, api.CodeUnavailable)
	if out != nil || version != 0 || bytes.Contains(buf[:cap(buf)], []byte("078-05")) {
		t.Error("a plaintext left without its record")
	}
	out, version, err = h.svc.Encrypt(ctx, c, "phi", []byte("x"), nil, "", nil)
	if wants(t, err, api.CodeUnavailable); out != nil || version != 0 {
		t.Error("a ciphertext left without its record")
	}
	for what, call := range map[string]func() (any, error){
		"decrypt batch": func() (any, error) {
			return h.svc.DecryptBatch(ctx, c, "phi", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: text}}})
		},
		"encrypt batch": func() (any, error) {
			return h.svc.EncryptBatch(ctx, c, "phi", api.EncryptBatchRequest{Items: []api.EncryptRequest{{}}})
		},
		"rewrap": func() (any, error) { return h.svc.Rewrap(ctx, c, "phi", api.RewrapRequest{Ciphertext: text}) },
		"rewrap batch": func() (any, error) {
			return h.svc.RewrapBatch(ctx, c, "phi", api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: text}}})
		},
		"datakey":    func() (any, error) { return h.svc.DataKey(ctx, c, "phi", api.DataKeyRequest{}) },
		"derive":     func() (any, error) { return h.svc.Derive(ctx, c, "phi", api.DeriveRequest{Label: "l"}) },
		"export":     func() (any, error) { return h.svc.Export(ctx, c, "phi", api.ExportKeyRequest{Reason: "r"}) },
		"inspect":    func() (any, error) { return h.svc.Inspect(ctx, c, api.InspectRequest{Ciphertext: text}) },
		"show":       func() (any, error) { return h.svc.Show(ctx, c, "phi") },
		"list":       func() (any, error) { return h.svc.List(ctx, c, "", 0) },
		"masters":    func() (any, error) { return h.svc.Masters(ctx, c) },
		"principals": func() (any, error) { return h.svc.Principals(ctx, c) },
		"status":     func() (any, error) { return h.svc.Status(ctx, c) },
		"doctor":     func() (any, error) { return h.svc.Doctor(ctx, c) },
		"create":     func() (any, error) { return h.svc.Create(ctx, c, api.CreateKeyRequest{Name: "other"}) },
		"rotate":     func() (any, error) { return h.svc.Rotate(ctx, c, "phi", api.RotateKeyRequest{}) },
		"compromise": func() (any, error) { return h.svc.Compromise(ctx, c, "phi", api.VersionStateRequest{}) },
		"principal": func() (any, error) {
			return h.svc.CreatePrincipal(ctx, c, api.CreatePrincipalRequest{Name: "p", Role: "auditor"})
		},
		"masters anew": func() (any, error) { return h.svc.RotateMasters(ctx, c, api.RotateMasterRequest{}) },
	} {
		did := d.did
		answer, err := call()
		wants(t, err, api.CodeUnavailable)
		if d.did == did {
			t.Errorf("%s: the work wasn't done, so the test shows nothing", what)
		}
		if !reflect.ValueOf(answer).IsZero() {
			t.Errorf("%s: an answer left without its record: %+v", what, answer)
		}
	}
	after := h.stored("phi")
	if after.Revision != before.Revision {
		t.Error("a change happened without its record")
	}
	_, err = Directory{h.st}.KeyByName(ctx, "other")
	wants(t, err, api.CodeNotFound)
}

// P2: denials are recorded too, by every verb.
func TestP2DenialsAreRecorded(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	text := h.encrypt("phi", "x", nil)
	nobody := asScoped(access.RoleOwner)
	for verb, call := range verbs(h, text) {
		before := len(h.events())
		wants(t, call(nobody, "phi"), api.CodeDenied)
		all := h.events()
		if len(all) != before+1 || all[before].Type != "permission_denied" || all[before].Success || all[before].Resource != "key/phi" {
			t.Errorf("%s: the denial is recorded as %+v", verb, all[before:])
		}
	}
}

// P1 and P4 under fault 2: every operation of the store fails once, in every kind, while a key is made, used, rotated,
// marked compromised and used again. Whatever was answered holds afterwards: each acknowledged ciphertext opens to its
// plaintext, exactly one version is active, numbers are dense, and a version that the store doesn't have sealed nothing.
func TestP1EveryStoreFailure(t *testing.T) {
	storetest.Sweep(t, func(t *testing.T, p *storetest.Plan) {
		h := newHouse(t, options{})
		faulty := storetest.Faulty(h.raw(), p)
		h.must(h.gate.Close(t.Context()))
		broken := h.over(faulty)
		acked := map[string]string{}
		use := func(plain string) {
			out, _, err := broken.Encrypt(t.Context(), owner(), "phi", []byte(plain), nil, "", nil)
			if err == nil {
				acked[string(out)] = plain
			}
		}
		_, created := broken.Create(t.Context(), owner(), api.CreateKeyRequest{Name: "phi"})
		use("one")
		_, _ = broken.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
		use("two")
		_, _ = broken.Compromise(t.Context(), owner(), "phi", api.VersionStateRequest{})
		use("three")
		_ = broken.Close(t.Context())

		h.ring.DropAll()
		k, err := Directory{h.st}.KeyByName(t.Context(), "phi")
		if fault.CodeOf(err) == api.CodeNotFound {
			if created == nil || len(acked) > 0 {
				t.Errorf("the key is gone, and its creation was answered with %v", created)
			}
			return
		}
		h.must(err)
		checkInvariants(t, h, k, acked)
	})
}

// raw is the store as whoever writes to the database himself sees it.
func (h *house) raw() store.Store { return h.st.(*Attested).Store }

// over is a service over another handle on the same store, with a gate of its own.
func (h *house) over(raw store.Store) *Service {
	h.t.Helper()
	st := Attest(raw)
	signer, key := h.signer()
	g, err := gate.New(gate.Config{Node: "n", Clock: h.clock.Now, Key: key, CheckpointEvery: -1, SumCounts: SumCounts}, st, signer)
	h.must(err)
	cfg := h.svc.cfg
	cfg.Gate, cfg.Store = g, st
	cfg.Ring = keyring.New(h.st.ID(), []keyring.MasterKey{masterKey(h.t, "first")}, Directory{st})
	st.Under(cfg.Ring)
	svc := New(cfg)
	ctx := context.Background()
	for range 2 { // the failure may hit the start; then it is past
		if err = g.Start(ctx); err == nil {
			break
		}
	}
	for range 2 {
		if err = cfg.Ring.Open(ctx); err == nil {
			break
		}
	}
	h.t.Cleanup(func() { _ = g.Close(ctx) })
	return svc
}

func checkInvariants(t *testing.T, h *house, k keys.Key, acked map[string]string) {
	t.Helper()
	active := 0
	for i, v := range k.Versions {
		if v.Number != uint32(i+1) {
			t.Errorf("I3: version %d at place %d", v.Number, i)
		}
		if v.State == keys.Active {
			active++
		}
		if _, err := h.ring.Export(t.Context(), &k, v.Number); err != nil {
			t.Errorf("version %d in state %s doesn't unwrap: %v", v.Number, v.State, err)
		}
	}
	if active != 1 {
		t.Errorf("I2: %d active versions", active)
	}
	for text, plain := range acked {
		blob, err := envelope.AppendDecodedText(nil, []byte(text))
		if err != nil {
			t.Errorf("I1: %v", err)
			continue
		}
		info, _ := envelope.Inspect(blob)
		ek, err := h.ring.Version(t.Context(), &k, info.Version)
		if err != nil {
			t.Errorf("I1 and P1: an acknowledged ciphertext stands under version %d: %v", info.Version, err)
			continue
		}
		if out, err := ek.Open(nil, blob, nil); err != nil || string(out) != plain {
			t.Errorf("I1: an acknowledged ciphertext doesn't open: %v", err)
		}
	}
}

// P1: a key whose creation wasn't committed protects nothing, not even in this process' memory.
func TestP1NothingIsSealedBeforeTheCommit(t *testing.T) {
	d := &deaf{}
	h := newHouse(t, options{door: func(real Doorway) Doorway { d.Doorway = real; return d }})
	d.broken = true
	_, err := h.svc.Create(t.Context(), owner(), api.CreateKeyRequest{Name: "phi"})
	wants(t, err, api.CodeUnavailable)
	d.broken = false
	_, err = h.tryEncrypt("phi", "x", nil)
	wants(t, err, api.CodeNotFound)

	h.create(api.CreateKeyRequest{Name: "phi"})
	d.broken = true
	_, err = h.svc.Rotate(t.Context(), owner(), "phi", api.RotateKeyRequest{})
	wants(t, err, api.CodeUnavailable)
	d.broken = false
	h.opens("phi", h.encrypt("phi", "x", nil), "x", nil, 1)
}

// P3: neither an error nor the log nor the store shows what was sealed, whichever way it goes wrong.
func TestP3NoPlaintextAnywhere(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	const canary = "canary-078051120"
	text := h.encrypt("phi", canary, nil)
	var said []string
	note := func(err error) {
		for ; err != nil; err = errors.Unwrap(err) {
			said = append(said, fmt.Sprintf("%v %+v %#v", err, err, err))
		}
	}
	_, _, err := h.tryDecrypt(owner(), "phi", text, map[string]string{"other": "context"})
	note(err)
	_, err = h.tryEncrypt("absent", canary, nil)
	note(err)
	_, _, err = h.tryDecrypt(owner(), "phi", canary, nil)
	note(err)
	_, err = h.svc.Inspect(t.Context(), owner(), api.InspectRequest{Ciphertext: canary})
	note(err)
	_, err = h.svc.Rewrap(t.Context(), owner(), "phi", api.RewrapRequest{Ciphertext: canary})
	note(err)
	_, err = h.svc.Import(t.Context(), owner(), "phi", api.ImportKeyRequest{Material: []byte(canary)})
	note(err)
	_, err = h.svc.Create(t.Context(), owner(), api.CreateKeyRequest{Name: canary + "!", Period: canary, Algorithm: canary})
	note(err)
	_, err = h.svc.AddMaster(t.Context(), owner(), api.MasterKeyRequest{URL: canary})
	note(err)
	h.opens("phi", text, canary, nil, 1)
	for _, s := range said {
		if strings.Contains(s, canary) {
			t.Errorf("an error shows it: %s", s)
		}
	}
	if bytes.Contains(h.everything(), []byte(canary)) {
		t.Error("the store or the log holds it")
	}
}

// Wrapped material that is swapped for another row's, or for its own past, doesn't open (FAULTS rows 8 and 9).
func TestRowsCantStandInForOneAnother(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "a"})
	h.create(api.CreateKeyRequest{Name: "b"})
	past := h.stored("a")
	_, err := h.svc.Rotate(t.Context(), owner(), "a", api.RotateKeyRequest{})
	h.must(err)
	a, b := h.stored("a"), h.stored("b")
	for name, change := range map[string]func(v *keys.Version){
		"another version's": func(v *keys.Version) { v.Wrapped = a.Versions[1].Wrapped },
		"another key's":     func(v *keys.Version) { v.Wrapped = b.Versions[0].Wrapped },
		"its own past":      func(v *keys.Version) { v.Wrapped = past.Versions[0].Wrapped },
		"another state":     func(v *keys.Version) { v.State = keys.Compromised },
		"another count":     func(v *keys.Version) { v.Seq-- },
	} {
		forged := a.Clone()
		change(&forged.Versions[0])
		h.ring.DropAll()
		if _, err := h.ring.Version(t.Context(), &forged, 1); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s material opens: %v", name, err)
		}
	}
}
