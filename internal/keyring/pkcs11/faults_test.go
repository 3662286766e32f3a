//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// works wraps and unwraps.
func works(t *testing.T, k keyring.MasterKey) error {
	t.Helper()
	m := material.Random(32)
	blob, err := k.Wrap(t.Context(), m, binding)
	if err != nil {
		return err
	}
	out, err := k.Unwrap(t.Context(), blob, binding)
	if err == nil && !out.Equal(m) {
		t.Error("unwrapped to something else")
	}
	return err
}

// A wrong PIN reaches the token once, however often the key is opened: tokens lock themselves. Another PIN is tried.
func TestWrongPIN(t *testing.T) {
	const wrong = "canary-of-a-wrong-pin"
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	before := h.lib.count("Login")
	h.env[pinVariable] = wrong
	for range 5 {
		_, err := h.driver.Open(t.Context(), raw)
		if fault.CodeOf(err) != api.CodeDenied || fault.NextOf(err) == "" || strings.Contains(err.Error()+fault.NextOf(err), wrong) {
			t.Fatalf("%v, next %s", err, fault.NextOf(err))
		}
	}
	if n := h.lib.count("Login") - before; n != 1 {
		t.Errorf("a wrong PIN was sent %d times", n)
	}
	h.env[pinVariable] = rightPIN
	if err := works(t, h.open(raw)); err != nil {
		t.Errorf("with the right one: %v", err)
	}
}

// The same from many goroutines at once.
func TestWrongPINOfMany(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	before := h.lib.count("Login")
	h.env[pinVariable] = "wrong"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeDenied {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if n := h.lib.count("Login") - before; n != 1 {
		t.Errorf("a wrong PIN was sent %d times", n)
	}
}

// A PIN that is locked, or one try from it, is left alone. SoftHSM never locks, so its library is made to say so.
func TestLockedPIN(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	before := h.lib.count("Login")
	for flag, word := range map[uint]string{p11.CKF_USER_PIN_LOCKED: "locked", p11.CKF_USER_PIN_FINAL_TRY: "one more"} {
		h.lib.flags = flag
		if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeDenied || !strings.Contains(err.Error(), word) {
			t.Errorf("flags %#x: %v", flag, err)
		}
	}
	if h.lib.count("Login") != before {
		t.Error("a PIN was sent")
	}
	h.lib.flags = 0
	for _, value := range []uint{p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED} {
		h.lib.fail("Login", value)
		if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeDenied {
			t.Errorf("%v: %v", p11.Error(value), err)
		}
	}
	h.open(raw)
}

func TestPINSources(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	delete(h.env, pinVariable)
	if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeNotFound || !strings.Contains(err.Error(), pinVariable) {
		t.Errorf("no PIN anywhere: %v", err)
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]api.Code{
		write("right", rightPIN, 0o600): "", write("line", rightPIN+"\n", 0o400): "", write("crlf", rightPIN+"\r\n", 0o600): "",
		write("open", rightPIN, 0o644): api.CodeWrongState, write("group", rightPIN, 0o640): api.CodeWrongState,
		write("empty", "\n", 0o600): api.CodeNotFound, write("lines", rightPIN+"\n\n", 0o600): api.CodeInvalid, write("long", strings.Repeat("1", maxPIN+1), 0o600): api.CodeInvalid,
		filepath.Join(dir, "none"): api.CodeNotFound, dir: api.CodeInvalid,
	} {
		m, err := h.driver.Open(t.Context(), raw+"&pin-source=file:"+path)
		if fault.CodeOf(err) != want || err != nil && (fault.FieldOf(err) != "pin-source" || strings.Contains(err.Error(), rightPIN)) {
			t.Errorf("%s: %v, field %q", path, err, fault.FieldOf(err))
		}
		if err == nil {
			_ = m.Close()
		}
	}
}

// A token that goes makes its key unavailable, never "changed blob", and comes back by itself: whether its own folder
// went or the folder of all, and with another key of the module lost along with it.
func TestTokenRemoved(t *testing.T) {
	h := newHSM(t, "one", "two")
	k, other := h.open(h.generate("one", "k")), h.open(h.generate("two", "k"))
	blob, err := k.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "away")
	for range 2 {
		if err := os.Rename(h.folder, away); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := k.Wrap(t.Context(), material.Random(32), binding); fault.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("wrapping without the token: %v", err)
			}
			if _, err := k.Unwrap(t.Context(), blob, binding); fault.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("unwrapping without the token: %v", err)
			}
		}
		if err := os.Rename(away, h.folder); err != nil {
			t.Fatal(err)
		}
		for _, k := range []*key{k, other} {
			if err := works(t, k); err != nil {
				t.Errorf("with the token again: %v", err)
			}
		}
		if out, err := k.Unwrap(t.Context(), blob, binding); err != nil {
			t.Errorf("an old blob: %v", err)
		} else {
			out.Destroy()
		}
	}
}

// One token of two goes: the other one's key doesn't notice.
func TestOneTokenOfTwoRemoved(t *testing.T) {
	h := newHSM(t, "one")
	folders, err := os.ReadDir(h.folder)
	if err != nil {
		t.Fatal(err)
	}
	h.initToken("two")
	k, other := h.open(h.generate("one", "k")), h.open(h.generate("two", "k"))
	token, away := filepath.Join(h.folder, folders[0].Name()), filepath.Join(t.TempDir(), "away")
	if err := os.Rename(token, away); err != nil {
		t.Fatal(err)
	}
	before := h.lib.count("Initialize")
	if err := works(t, k); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("without its token: %v", err)
	}
	if err := works(t, other); err != nil || h.lib.count("Initialize") != before {
		t.Errorf("the other token: %v, and the module was initialised anew: %v", err, h.lib.count("Initialize") != before)
	}
	_ = other.Close() // nobody is in the way of looking again any more
	if err := os.Rename(away, token); err != nil {
		t.Fatal(err)
	}
	if err := works(t, k); err != nil {
		t.Errorf("with its token again: %v", err)
	}
}

// Under the names of the URL another key may lie when the token is back: nothing is wrapped under it.
func TestAnotherKeyComesBack(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	k := h.open(raw)
	if err := os.Rename(h.folder, filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	if err := works(t, k); fault.CodeOf(err) != api.CodeUnavailable {
		t.Fatalf("%v", err)
	}
	if err := os.Mkdir(h.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	h.initToken("one")
	h.generate("one", "k")
	if err := works(t, k); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "another key") {
		t.Errorf("under another key: %v", err)
	}
	if h.open(raw).ID() == k.ID() {
		t.Error("two keys, one fingerprint")
	}
}

// Every way in which modules say that a session, a login or the device is gone: one call connects anew, and if that
// doesn't help either it is unavailable. No call fails without another try, none tries for ever.
func TestLostSessions(t *testing.T) {
	h := newHSM(t, "one")
	k := h.open(h.generate("one", "k"))
	blob, err := k.Wrap(t.Context(), material.Random(32), binding)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []uint{
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_DEVICE_REMOVED, p11.CKR_DEVICE_ERROR, p11.CKR_TOKEN_NOT_PRESENT,
		p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OPERATION_ACTIVE, p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_GENERAL_ERROR,
	} {
		h.lib.fail("Encrypt", value)
		if err := works(t, k); err != nil {
			t.Errorf("wrapping after %v: %v", p11.Error(value), err)
		}
		h.lib.fail("Decrypt", value)
		h.lib.fail("Encrypt", value) // the proof that the key works
		if _, err := k.Unwrap(t.Context(), blob, binding); err != nil {
			t.Errorf("unwrapping after %v: %v", p11.Error(value), err)
		}
		h.lib.fail("Encrypt", value, value, value, value)
		before := h.lib.count("Encrypt")
		if _, err := k.Wrap(t.Context(), material.Random(32), binding); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "CKR_") {
			t.Errorf("wrapping under %v that stays: %v", p11.Error(value), err)
		}
		if n := h.lib.count("Encrypt") - before; n > 4 {
			t.Errorf("tried %d times", n)
		}
		h.lib.mu.Lock()
		clear(h.lib.failing)
		h.lib.mu.Unlock()
		if err := works(t, k); err != nil {
			t.Errorf("after %v: %v", p11.Error(value), err)
		}
	}
}

// The last sessions of a token do for everybody; without a single one there is an error that says so.
func TestSessionsRunOut(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	h.lib.sessions = 2
	k := h.open(raw)
	c := k.now
	var taken [2]p11.SessionHandle
	for i := range taken {
		s, err := c.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken[i] = s
	}
	third := make(chan error)
	go func() { third <- works(t, k) }()
	if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "no session left") {
		t.Errorf("without a session: %v", err)
	}
	for _, s := range taken {
		c.give(s)
	}
	if err := <-third; err != nil || k.now != c {
		t.Errorf("who waited for a session: %v; connected anew: %v", err, k.now != c)
	}
	many(t, k)
	if c.opened != 2 {
		t.Errorf("%d sessions", c.opened)
	}
}

// Sixteen goroutines and more share at most maxSessions, and one that waits for a session goes when its caller does.
func TestManyGoroutines(t *testing.T) {
	h := newHSM(t, "one")
	k := h.open(h.generate("one", "k"))
	many(t, k)
	for range maxSessions {
		if _, err := k.now.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() { waiting <- second(k.Wrap(ctx, material.Random(32), binding)) }()
	cancel()
	if err := <-waiting; fault.CodeOf(err) != api.CodeCancelled {
		t.Errorf("waiting for a session: %v", err)
	}
	go func() { waiting <- second(k.Wrap(t.Context(), material.Random(32), binding)) }()
	if err := k.Close(); err != nil { // with every session in use, and one caller waiting
		t.Fatal(err)
	}
	if err := <-waiting; fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("waiting while the key is closed: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func many(t *testing.T, k *key) {
	t.Helper()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				if err := works(t, k); err != nil {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := k.now.opened; n > maxSessions {
		t.Errorf("%d sessions", n)
	}
}

// While sixteen goroutines work, the module is finalised under them after every 40th call: handles of before mean nothing, or
// something else, afterwards. Nothing is unwrapped wrongly, and what fails is unavailable, for a call that met two losses.
func TestLossUnderLoad(t *testing.T) {
	const workers, calls, every = 16, 30, 40
	h := newHSM(t, "one")
	k := h.open(h.generate("one", "k"))
	returned := make(chan error, workers)
	for range workers {
		go func() {
			for range calls {
				returned <- works(t, k)
			}
		}()
	}
	failures := 0
	for n := range workers * calls {
		if err := <-returned; err != nil {
			failures++
			if fault.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("%v", err)
			}
		}
		if n%every == 0 {
			k.module.all.mu.Lock()
			k.module.stop()
			k.module.all.mu.Unlock()
		}
	}
	if err := works(t, k); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	t.Logf("%d calls, %d losses, %d failures", workers*calls, workers*calls/every, failures)
}

// Nobody who went away starts anything on the token.
func TestCancelledBeforeAnything(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	k := h.open(raw)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	logins, encryptions := h.lib.count("Login"), h.lib.count("Encrypt")
	for name, err := range map[string]error{
		"Open": second(h.driver.Open(gone, raw)), "Generate": h.driver.Generate(gone, url("one", "new")),
		"Wrap": second(k.Wrap(gone, material.Random(32), binding)),
	} {
		if fault.CodeOf(err) != api.CodeCancelled {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.lib.count("Login") != logins || h.lib.count("Encrypt") != encryptions {
		t.Error("the token was asked for nobody")
	}
}

// Modules that don't do AES-GCM as they are told are found out when the key is opened.
func TestModuleWithItsOwnWays(t *testing.T) {
	h := newHSM(t, "one")
	raw := h.generate("one", "k")
	for name, change := range map[string]func([]byte) []byte{
		"appends its own vector": func(b []byte) []byte { return append(b, make([]byte, ivSize)...) },
		"never the same twice":   func(b []byte) []byte { return append(b[:len(b)-8], material.Random(8).Expose()...) },
	} {
		h.driver.modules.open = nil
		h.driver.modules.load = func(path string) library { return &strange{load(path), change} }
		if _, err := h.driver.Open(t.Context(), raw); fault.CodeOf(err) != api.CodeWrongState {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type strange struct {
	library
	change func([]byte) []byte
}

func (s *strange) Encrypt(h p11.SessionHandle, plain []byte) ([]byte, error) {
	out, err := s.library.Encrypt(h, plain)
	return s.change(out), err
}

// BenchmarkSoftHSM is what a call costs without a network: Wrap is one call into the module, Unwrap another.
func BenchmarkSoftHSM(b *testing.B) {
	h := newHSM(b, "one")
	k := h.open(h.generate("one", "k"))
	m := material.Random(32)
	blob, err := k.Wrap(b.Context(), m, binding)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("wrap", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Wrap(b.Context(), m, binding); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unwrap", func(b *testing.B) {
		for b.Loop() {
			out, err := k.Unwrap(b.Context(), blob, binding)
			if err != nil {
				b.Fatal(err)
			}
			out.Destroy()
		}
	})
}
