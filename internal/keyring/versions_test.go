package keyring_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

var now = time.Unix(1_700_000_000, 0)

// P4: after any number of rotations every version opens what it sealed, and nothing else.
func TestVersionsOpenWhatTheySealed(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	var blobs [][]byte
	for n := uint32(1); n <= 5; n++ {
		sealer, err := ring.Version(t.Context(), &key, n)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := sealer.Seal(nil, fmt.Append(nil, "value ", n), nil)
		if err != nil || sealer.Header() != (envelope.Header{Format: 1, Suite: key.Suite, KeyID: key.ID, Version: n}) {
			t.Fatalf("version %d: %v, %v", n, sealer, err)
		}
		blobs = append(blobs, blob)
		keyringtest.Rotate(t, ring, src, &key)
	}
	for i, blob := range blobs {
		for n := uint32(1); n <= 5; n++ {
			opener, err := ring.Version(t.Context(), &key, n)
			if err != nil {
				t.Fatal(err)
			}
			out, err := opener.Open(nil, blob, nil)
			if own := int(n) == i+1; own != (err == nil) || own && string(out) != fmt.Sprint("value ", n) {
				t.Errorf("version %d on what version %d sealed: %q, %v", n, i+1, out, err)
			}
		}
	}
}

// FAULTS rows 8 and 9: a row of the store stands for itself and for the state that it is in, and for nothing else: not
// another version, key, state, tenant, nor its own past.
func TestVersionRowsAreBound(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key, other := keyringtest.NewKey(t, ring, src, "phi"), keyringtest.NewKey(t, ring, src, "pii")
	past := key.Versions[0] // active, before it was deactivated
	keyringtest.Rotate(t, ring, src, &key)
	if _, err := ring.Version(t.Context(), &key, 1); err != nil {
		t.Fatal(err)
	}
	secretsKEK := sealedUnder(t, ring, keys.KEKSecrets)
	for name, change := range map[string]func(k *keys.Key, v *keys.Version){
		"state active again":       func(_ *keys.Key, v *keys.Version) { v.State = keys.Active },
		"state not compromised":    func(_ *keys.Key, v *keys.Version) { v.State = keys.Compromised },
		"sequence":                 func(_ *keys.Key, v *keys.Version) { v.Seq-- },
		"its own past, whole":      func(_ *keys.Key, v *keys.Version) { v.Wrapped = past.Wrapped },
		"another version's":        func(k *keys.Key, v *keys.Version) { v.Wrapped = k.Versions[1].Wrapped },
		"another key's":            func(_ *keys.Key, v *keys.Version) { v.Wrapped = other.Versions[0].Wrapped },
		"key id":                   func(k *keys.Key, _ *keys.Version) { k.ID = other.ID },
		"a bit":                    func(_ *keys.Key, v *keys.Version) { v.Wrapped = flip(v.Wrapped) },
		"a byte less":              func(_ *keys.Key, v *keys.Version) { v.Wrapped = v.Wrapped[:len(v.Wrapped)-1] },
		"a KEK that doesn't exist": func(_ *keys.Key, v *keys.Version) { v.KEK = "00000000000000000000000000000001" },
		"a KEK for secrets":        func(_ *keys.Key, v *keys.Version) { v.KEK = secretsKEK },
	} {
		k := key.Clone()
		change(&k, &k.Versions[0])
		ring.DropAll()
		if _, err := ring.Version(t.Context(), &k, 1); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	// The past put back completely is a valid past: the ring can't know. The store's anchor must (FAULTS row 9); what the
	// ring does is to verify again as soon as the sequence differs from what it has unwrapped.
	k := key.Clone()
	if _, err := ring.Version(t.Context(), &k, 1); err != nil {
		t.Fatal(err)
	}
	k.Versions[0].Seq++
	if _, err := ring.Version(t.Context(), &k, 1); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a cached version served another sequence: %v", err)
	}
}

// sealedUnder is the id of the active KEK of a purpose.
func sealedUnder(t *testing.T, r *keyring.Ring, p keys.KEKPurpose) keys.KEKID {
	t.Helper()
	blob, err := r.Seal(t.Context(), p, keyring.Binding{Kind: "x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := envelope.Inspect(blob)
	if err != nil {
		t.Fatal(err)
	}
	return keys.KEKID(info.KeyID.String())
}

// Material follows its version through every state; the end of it is the end.
func TestBindFollowsTheState(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key := keyringtest.NewKey(t, ring, src, "phi")
	sealer, err := ring.Version(t.Context(), &key, 1)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := sealer.Seal(nil, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := now
	for _, to := range []keys.State{keys.Suspended, keys.Active, keys.Deactivated, keys.Compromised, keys.DestroyScheduled, keys.Compromised, keys.DestroyScheduled} {
		from := key.Versions[0]
		if _, err := key.Move(1, to, at, "somebody", "test", 7); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Version(t.Context(), &key, 1); fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("%s, not bound anew: %v", to, err)
		}
		if err := ring.Bind(t.Context(), &key, 1, from); err != nil {
			t.Fatal(err)
		}
		ring.Drop(key.ID)
		opener, err := ring.Version(t.Context(), &key, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := opener.Open(nil, blob, nil); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	from := key.Versions[0]
	if _, err := key.Destroy(1, at.AddDate(0, 0, 8), "somebody", "test"); err != nil {
		t.Fatal(err)
	}
	key.Versions[0].Wrapped = from.Wrapped // whatever is left is taken
	if err := ring.Bind(t.Context(), &key, 1, from); err != nil || key.Versions[0].Wrapped != nil || key.Versions[0].KEK != "" {
		t.Errorf("binding a destroyed version: %v, %d bytes left", err, len(key.Versions[0].Wrapped))
	}
	for name, err := range map[string]error{
		"using":     second(ring.Version(t.Context(), &key, 1)),
		"exporting": second(ring.Export(t.Context(), &key, 1)),
		"filling":   ring.Fill(t.Context(), &key, 1),
	} {
		if fault.CodeOf(err) != api.CodeWrongState {
			t.Errorf("%s a destroyed version: %v", name, err)
		}
	}
}

func TestFillAndExport(t *testing.T) {
	src := &keyringtest.Source{}
	ring := keyringtest.NewRing(t, src)
	key, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: "imported"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Rotate(now, "somebody", "import", 0); err != nil {
		t.Fatal(err)
	}
	m := material.Random(32)
	keep := m.Clone()
	if err := ring.FillWith(t.Context(), &key, 1, m); err != nil || m.Len() != 0 {
		t.Fatalf("filling: %v; %d bytes left alive", err, m.Len())
	}
	if bytes.Contains(key.Versions[0].Wrapped, keep.Expose()) {
		t.Error("the material stands in the row")
	}
	out, err := ring.Export(t.Context(), &key, 1)
	if err != nil || !out.Equal(keep) {
		t.Errorf("exported other bytes: %v", err)
	}
	wrapped := key.Versions[0].Wrapped
	for name, c := range map[string]struct {
		n    uint32
		m    *material.Bytes
		code api.Code
	}{
		"again": {1, material.Random(32), api.CodeWrongState}, "version 0": {0, material.Random(32), api.CodeNotFound}, "version 2": {2, material.Random(32), api.CodeNotFound},
	} {
		if err := ring.FillWith(t.Context(), &key, c.n, c.m); fault.CodeOf(err) != c.code || c.m.Len() != 0 {
			t.Errorf("filling %s: %v", name, err)
		}
	}
	key.Versions[0].Wrapped = nil
	if err := ring.FillWith(t.Context(), &key, 1, material.Random(16)); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("filling with 16 bytes: %v", err)
	}
	if _, err := ring.Version(t.Context(), &key, 1); fault.CodeOf(err) != api.CodeWrongState {
		t.Errorf("using a version without material: %v", err)
	}
	key.Versions[0].Wrapped = wrapped
	for _, n := range []uint32{0, 2} {
		if _, err := ring.Version(t.Context(), &key, n); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("using version %d: %v", n, err)
		}
		if err := ring.Bind(t.Context(), &key, n, key.Versions[0]); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("binding version %d: %v", n, err)
		}
	}
	closed := keyring.New(keyringtest.Tenant, nil, src)
	key.Versions[0].Wrapped = nil
	if err := closed.Fill(t.Context(), &key, 1); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("filling without an open KEK: %v", err)
	}
}

// Another node made a KEK and wrapped a version under it: this one finds it without being told.
func TestKEKOfAnotherNode(t *testing.T) {
	src, master := &keyringtest.Source{}, keyringtest.Master(t, "one")
	here := keyringtest.NewRing(t, src, master)
	there := keyringtest.NewRing(t, src, master) // makes a second generation of every KEK
	key := keyringtest.NewKey(t, there, src, "phi")
	if _, err := here.Version(t.Context(), &key, 1); err != nil {
		t.Errorf("a version under another node's KEK: %v", err)
	}
	blob, err := there.Seal(t.Context(), keys.KEKSecrets, keyring.Binding{Kind: "x"}, []byte("dsn"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := here.Unseal(t.Context(), keys.KEKSecrets, keyring.Binding{Kind: "x"}, blob); err != nil || string(out) != "dsn" {
		t.Errorf("a record under another node's KEK: %q, %v", out, err)
	}
}
