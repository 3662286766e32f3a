//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/material"
)

func TestSoftHSM(t *testing.T) {
	h := newHSM(t, "one", "two")
	first, second := h.generate("one", "master"), h.generate("two", "master")
	open := func(raw string) func(*testing.T) keyring.MasterKey {
		return func(t *testing.T) keyring.MasterKey {
			m, err := h.driver.Open(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	keyringtest.Exercise(t, keyringtest.Harness{Open: open(first), Other: open(second)})
	h.generate("one", "next") // on the same token
	keyringtest.Exercise(t, keyringtest.Harness{Open: open(first), Other: open(url("one", "next"))})
	if m := h.open(first); m.Kind() != keyring.Wraps || m.Provider() != "pkcs11" || m.URL() != first {
		t.Errorf("%s, %s, %s", m.Kind(), m.Provider(), m.URL())
	}
}

// The fingerprint is the key's, not its names': it stays under another URL, and another key under the same names has
// another one, whose blobs this one refuses unseen.
func TestFingerprint(t *testing.T) {
	h := newHSM(t, "one")
	byLabel := h.open(h.generate("one", "master"))
	info := h.tokenInfo("one")
	bySerial := h.open("pkcs11:serial=" + info.SerialNumber + ";object=master;type=secret-key?module-path=" + libraryPath)
	if byLabel.ID() != bySerial.ID() || len(byLabel.ID()) != 32 {
		t.Errorf("one key has fingerprints %s and %s", byLabel.ID(), bySerial.ID())
	}
	blob, err := byLabel.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	imposter := h.open(h.generate("one", "other"))
	at := bytes.Index(blob, header(byLabel.id))
	renamed := append(append(bytes.Clone(blob[:at]), header(imposter.id)...), blob[at+headerSize:]...)
	for name, changed := range map[string][]byte{"as it is": blob, "under its own name": renamed} {
		if m, err := imposter.Unwrap(t.Context(), changed, binding); m != nil || fault.CodeOf(err) != api.CodeIntegrity {
			t.Errorf("another key's blob %s: %v", name, err)
		}
	}
	if bytes.Contains(blob, printIV) {
		t.Error("a wrapping uses the fingerprint's initialisation vector")
	}
}

// What Generate makes passes every rule, can't be taken out of the token by its own PIN's holder, and is never made twice.
func TestGenerate(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "master")
	k := h.open(raw)
	err := k.do(t.Context(), func(lib library, s p11.SessionHandle, key p11.ObjectHandle) error {
		for _, a := range []uint{p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_DERIVE, p11.CKA_MODIFIABLE, p11.CKA_EXTRACTABLE} {
			if got, err := lib.GetAttributeValue(s, key, []*p11.Attribute{p11.NewAttribute(a, nil)}); err != nil || !bytes.Equal(got[0].Value, []byte{0}) {
				t.Errorf("attribute %#x: %v, %v", a, got, err)
			}
		}
		for _, a := range []uint{p11.CKA_NEVER_EXTRACTABLE, p11.CKA_ALWAYS_SENSITIVE} {
			if got, err := lib.GetAttributeValue(s, key, []*p11.Attribute{p11.NewAttribute(a, nil)}); err != nil || !bytes.Equal(got[0].Value, []byte{1}) {
				t.Errorf("attribute %#x: %v, %v", a, got, err)
			}
		}
		if got, err := lib.GetAttributeValue(s, key, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)}); err == nil {
			t.Errorf("the token tells the key: %d bytes", len(got[0].Value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for why, c := range map[string]struct {
		url  string
		code api.Code
	}{
		"the label is taken":           {raw, api.CodeConflict},
		"the label is taken, other id": {"pkcs11:token=one;object=master;id=%09?module-path=" + libraryPath, api.CodeConflict},
		"no label":                     {"pkcs11:token=one;id=%09?module-path=" + libraryPath, api.CodeInvalid},
		"no such token":                {url("none", "x"), api.CodeNotFound},
	} {
		if err := h.driver.Generate(t.Context(), c.url); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", why, err)
		}
	}
	if err := h.driver.Generate(t.Context(), "pkcs11:token=one;object=named;id=%AB%01?module-path="+libraryPath); err != nil {
		t.Fatal(err)
	}
	h.open("pkcs11:token=one;id=%AB%01?module-path=" + libraryPath)
}

// A key that could leave the token is refused, with the attribute that lets it.
func TestRefusesKeysThatCouldLeave(t *testing.T) {
	h := newHSM(t, "one")
	for name, a := range map[string]*p11.Attribute{
		"CKA_EXTRACTABLE": p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		"CKA_SENSITIVE":   p11.NewAttribute(p11.CKA_SENSITIVE, false),
		"CKA_PRIVATE":     p11.NewAttribute(p11.CKA_PRIVATE, false),
		"CKA_VALUE_LEN":   p11.NewAttribute(p11.CKA_VALUE_LEN, 16),
		"CKA_ENCRYPT":     p11.NewAttribute(p11.CKA_ENCRYPT, false),
		"CKA_DECRYPT":     p11.NewAttribute(p11.CKA_DECRYPT, false),
	} {
		_, err := h.driver.Open(t.Context(), h.put("one", name, a))
		if fault.CodeOf(err) != api.CodeWrongState || fault.FieldOf(err) != name || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.open(h.put("one", "as-it-should-be"))
}

func TestNames(t *testing.T) {
	h := newHSM(t, "one", "twin", "twin")
	h.put("one", "double", p11.NewAttribute(p11.CKA_ID, []byte{1}))
	h.put("one", "double", p11.NewAttribute(p11.CKA_ID, []byte{2}))
	for raw, want := range map[string]api.Code{
		url("one", "double"):  api.CodeWrongState, // which one?
		url("twin", "x"):      api.CodeWrongState,
		url("one", "none"):    api.CodeNotFound,
		url("none", "double"): api.CodeNotFound,
		"pkcs11:serial=0;object=double?module-path=" + libraryPath:         api.CodeNotFound,
		"pkcs11:token=one;object=double;id=%03?module-path=" + libraryPath: api.CodeNotFound,
	} {
		_, err := h.driver.Open(t.Context(), raw)
		if fault.CodeOf(err) != want || fault.FieldOf(err) == keyring.FieldURL || fault.NextOf(err) == "" {
			t.Errorf("%s: %v, field %s", raw, err, fault.FieldOf(err))
		}
	}
	one := h.open("pkcs11:token=one;object=double;id=%01?module-path=" + libraryPath)
	two := h.open("pkcs11:token=one;id=%02?module-path=" + libraryPath)
	if one.ID() == two.ID() {
		t.Error("two keys, one fingerprint")
	}
}

func TestModules(t *testing.T) {
	h := newHSM(t, "one")
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	open := filepath.Join(dir, "open.so")
	for path, mode := range map[string]os.FileMode{text: 0o644, open: 0o666} {
		if err := os.WriteFile(path, []byte("no library"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	loose := filepath.Join(dir, "loose")
	if err := os.Mkdir(loose, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(loose, "x.so"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(libraryPath, filepath.Join(loose, "link.so")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]api.Code{
		loose + "/link.so": api.CodeWrongState, // anybody may lead it elsewhere
		dir + "/none.so":   api.CodeNotFound, text: api.CodeInvalid, dir: api.CodeInvalid, open: api.CodeWrongState, loose + "/x.so": api.CodeWrongState,
		"/bin/sh": api.CodeInvalid, // a program, and no PKCS#11 library
	} {
		_, err := h.driver.Open(t.Context(), "pkcs11:token=one;object=k?module-path="+path)
		if fault.CodeOf(err) != want || fault.FieldOf(err) != "module-path" || fault.NextOf(err) == "" {
			t.Errorf("%s: %v, field %q, next %q", path, err, fault.FieldOf(err), fault.NextOf(err))
		}
	}
	if h.lib != nil {
		t.Error("one of them was used")
	}
}

// Keys of one module share its initialisation, whatever path leads to it; the last one ends it.
func TestOneInitialisation(t *testing.T) {
	h := newHSM(t, "one", "two")
	first, second := h.generate("one", "k"), h.generate("two", "k")
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(libraryPath, link); err != nil {
		t.Fatal(err)
	}
	before := h.lib.count("Initialize")
	a := h.open(first)
	b := h.open(strings.Replace(second, libraryPath, link, 1))
	for _, k := range []*key{a, b} {
		if _, err := k.Wrap(t.Context(), material.Random(32), binding); err != nil {
			t.Fatal(err)
		}
	}
	ended := h.lib.count("Finalize")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Wrap(t.Context(), material.Random(32), binding); err != nil {
		t.Errorf("after another key of the module was closed: %v", err)
	}
	if n := h.lib.count("Initialize") - before; n != 1 || h.lib.count("Finalize") != ended {
		t.Errorf("initialised %d times, and finalised while in use", n)
	}
	_ = b.Close()
	_ = b.Close()
	if n := h.lib.count("Finalize") - ended; n != 1 {
		t.Errorf("finalised %d times", n)
	}
	if _, err := h.open(first).Wrap(t.Context(), material.Random(32), binding); err != nil {
		t.Errorf("initialised once more: %v", err)
	}
}

// A library that somebody else in the process initialised is used, and left initialised.
func TestInitialisedBySomebodyElse(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	theirs := load(libraryPath)
	if err := theirs.Initialize(); err != nil {
		t.Fatal(err)
	}
	k := h.open(raw)
	_ = k.Close()
	if _, err := theirs.GetSlotList(true); err != nil {
		t.Errorf("their library: %v", err)
	}
	if err := theirs.Finalize(); err != nil {
		t.Fatal(err)
	}
}

func TestWrapIsBounded(t *testing.T) {
	h := newHSM(t, "one")
	k := h.open(h.generate("one", "k"))
	m := material.Random(maxSecret)
	blob, err := k.Wrap(t.Context(), m, binding)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := k.Unwrap(t.Context(), blob, binding); err != nil || !out.Equal(m) {
		t.Errorf("the largest: %v", err)
	}
	if _, err := k.Wrap(t.Context(), material.Random(maxSecret+1), binding); fault.CodeOf(err) != api.CodeTooLarge {
		t.Errorf("one byte more: %v", err)
	}
	before := h.lib.count("Decrypt")
	if _, err := k.Unwrap(t.Context(), append(blob, 0), binding); fault.CodeOf(err) != api.CodeIntegrity || h.lib.count("Decrypt") != before {
		t.Errorf("a blob that can't be ours: %v; shown to the token: %v", err, h.lib.count("Decrypt") != before)
	}
}

func (h *hsm) tokenInfo(label string) (info p11.TokenInfo) {
	h.t.Helper()
	m, err := h.driver.modules.use(libraryPath)
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.release()
	err = m.call(m.current(), func(lib library) (err error) {
		_, info, err = findToken(lib, address{label: label})
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return info
}
