//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/internal/keyring"
)

const (
	libraryPath = "/usr/lib/softhsm/libsofthsm2.so"
	rightPIN    = "1234-right"
)

// hsm is a SoftHSM of one test's own, with its tokens in a temporary folder, and a driver whose library fails on demand.
type hsm struct {
	t      testing.TB
	folder string
	driver *Driver
	lib    *faulty
	env    map[string]string // what the driver looks variables up in
}

func newHSM(t testing.TB, tokens ...string) *hsm {
	t.Helper()
	if os.Getenv("KEYTURN_TEST_NO_SOFTHSM") == "1" {
		t.Skip("needs SoftHSM2, and KEYTURN_TEST_NO_SOFTHSM=1")
	}
	if _, err := os.Stat(libraryPath); err != nil {
		t.Fatalf("SoftHSM2 is missing (scripts/test-deps.sh installs it; KEYTURN_TEST_NO_SOFTHSM=1 skips what needs it): %v", err)
	}
	h := &hsm{t: t, folder: filepath.Join(t.TempDir(), "tokens"), env: map[string]string{pinVariable: rightPIN}}
	conf := filepath.Join(filepath.Dir(h.folder), "softhsm2.conf")
	text := "directories.tokendir = " + h.folder + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range tokens {
		h.initToken(label)
	}
	h.driver = New()
	h.driver.Lookup = func(name string) (string, bool) { v, ok := h.env[name]; return v, ok }
	h.driver.modules.load = func(path string) library {
		if lib := load(path); lib != nil {
			h.lib = &faulty{library: lib, failing: map[string][]error{}, calls: map[string]int{}}
			return h.lib
		}
		return nil
	}
	return h
}

func (h *hsm) initToken(label string) {
	h.t.Helper()
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", rightPIN, "--so-pin", "so-pin-1").CombinedOutput()
	if err != nil {
		h.t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
}

func url(token, object string) string {
	return "pkcs11:token=" + token + ";object=" + object + "?module-path=" + libraryPath
}

// generate has the driver make a key and gives its URL.
func (h *hsm) generate(token, object string) string {
	h.t.Helper()
	if err := h.driver.Generate(h.t.Context(), url(token, object)); err != nil {
		h.t.Fatal(err)
	}
	return url(token, object)
}

// open opens a key until the test ends.
func (h *hsm) open(raw string) *key {
	h.t.Helper()
	m, err := h.driver.Open(h.t.Context(), raw)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = m.Close() })
	return m.(*key)
}

// put makes a key by other means than the driver's, with other attributes than it would take.
func (h *hsm) put(token, object string, attributes ...*p11.Attribute) string {
	h.t.Helper()
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, object),
	}
	changed := map[uint]bool{}
	for _, a := range attributes {
		changed[a.Type] = true
	}
	for _, rule := range rules {
		if !changed[rule.attribute] {
			template = append(template, p11.NewAttribute(rule.attribute, rule.want))
		}
	}
	m, err := h.driver.modules.use(libraryPath)
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.release()
	err = m.call(m.current(), func(lib library) error {
		slot, info, err := findToken(lib, address{label: token})
		if err != nil {
			return err
		}
		s, err := lib.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		defer func() { _ = lib.CloseSession(s) }()
		if err := h.driver.logIn(lib, s, address{module: libraryPath}, info); err != nil {
			return err
		}
		_, err = lib.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, append(template, attributes...))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return url(token, object)
}

// faulty is a library that fails where it is told to, and counts.
type faulty struct {
	library

	mu       sync.Mutex
	failing  map[string][]error // by function: what its next calls return; nil means the real thing
	calls    map[string]int
	flags    uint // set in every token's flags
	sessions int  // at most so many at once, when not 0
	opened   int
	before   func(function string) // called before each, without the lock
}

// fail has the next calls of a function return errors.
func (f *faulty) fail(function string, values ...uint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range values {
		f.failing[function] = append(f.failing[function], p11.Error(v))
	}
}

func (f *faulty) count(function string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[function]
}

func (f *faulty) enter(function string) error {
	if f.before != nil {
		f.before(function)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[function]++
	if queue := f.failing[function]; len(queue) > 0 {
		f.failing[function] = queue[1:]
		return queue[0]
	}
	return nil
}

func (f *faulty) Initialize(o ...p11.InitializeOption) error {
	if err := f.enter("Initialize"); err != nil {
		return err
	}
	return f.library.Initialize(o...)
}

func (f *faulty) Finalize() error {
	if err := f.enter("Finalize"); err != nil {
		return err
	}
	f.mu.Lock()
	f.opened = 0
	f.mu.Unlock()
	return f.library.Finalize()
}

func (f *faulty) GetTokenInfo(slot uint) (p11.TokenInfo, error) {
	if err := f.enter("GetTokenInfo"); err != nil {
		return p11.TokenInfo{}, err
	}
	info, err := f.library.GetTokenInfo(slot)
	info.Flags |= f.flags
	return info, err
}

func (f *faulty) OpenSession(slot, flags uint) (p11.SessionHandle, error) {
	if err := f.enter("OpenSession"); err != nil {
		return 0, err
	}
	f.mu.Lock()
	full := f.sessions > 0 && f.opened >= f.sessions
	if !full {
		f.opened++
	}
	f.mu.Unlock()
	if full {
		return 0, p11.Error(p11.CKR_SESSION_COUNT)
	}
	return f.library.OpenSession(slot, flags)
}

func (f *faulty) CloseSession(s p11.SessionHandle) error {
	f.mu.Lock()
	f.opened--
	f.mu.Unlock()
	return f.library.CloseSession(s)
}

func (f *faulty) Login(s p11.SessionHandle, user uint, pin string) error {
	if err := f.enter("Login"); err != nil {
		return err
	}
	return f.library.Login(s, user, pin)
}

func (f *faulty) Encrypt(s p11.SessionHandle, plain []byte) ([]byte, error) {
	if err := f.enter("Encrypt"); err != nil {
		return nil, err
	}
	return f.library.Encrypt(s, plain)
}

func (f *faulty) Decrypt(s p11.SessionHandle, sealed []byte) ([]byte, error) {
	if err := f.enter("Decrypt"); err != nil {
		return nil, err
	}
	return f.library.Decrypt(s, sealed)
}

var binding = keyring.Binding{Tenant: "store-1", Kind: "kek/data", ID: "00112233445566778899aabbccddeeff", Version: 1}
