//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// library is what we call of PKCS#11: *p11.Ctx, or in tests one that fails on demand.
type library interface {
	Initialize(...p11.InitializeOption) error
	Finalize() error
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (p11.TokenInfo, error)
	OpenSession(slot uint, flags uint) (p11.SessionHandle, error)
	CloseSession(p11.SessionHandle) error
	Login(s p11.SessionHandle, user uint, pin string) error
	FindObjectsInit(p11.SessionHandle, []*p11.Attribute) error
	FindObjects(s p11.SessionHandle, max int) ([]p11.ObjectHandle, bool, error)
	FindObjectsFinal(p11.SessionHandle) error
	GetAttributeValue(p11.SessionHandle, p11.ObjectHandle, []*p11.Attribute) ([]*p11.Attribute, error)
	GenerateKey(p11.SessionHandle, []*p11.Mechanism, []*p11.Attribute) (p11.ObjectHandle, error)
	EncryptInit(p11.SessionHandle, []*p11.Mechanism, p11.ObjectHandle) error
	Encrypt(p11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(p11.SessionHandle, []*p11.Mechanism, p11.ObjectHandle) error
	Decrypt(p11.SessionHandle, []byte) ([]byte, error)
}

// load loads a library, nil when it is none.
func load(path string) library {
	if ctx := p11.New(path); ctx != nil {
		return ctx
	}
	return nil
}

// modules are the libraries of a process, by resolved path. They stay loaded: a library has threads and exit handlers.
type modules struct {
	load func(path string) library

	mu   sync.Mutex // guards open, and refs, ready, ours and live of each
	open map[string]*module
}

// module is one library.
type module struct {
	all  *modules
	path string

	refs  int // keys that use it
	ready bool
	ours  bool                     // we initialised it, so we may finalise it: not where something else in the process did
	live  map[*connection]struct{} // those that work, as far as anybody knows

	// calls is held for reading around every call into lib, for writing while lib is initialised or finalised, which ends
	// every session and changes what handles mean. It is taken after modules.mu.
	calls      sync.RWMutex
	lib        library
	generation int // of handles, guarded by calls; grows with every initialisation
}

// use finds, or loads and initialises, the library at a path. The caller releases it.
func (ms *modules) use(path string) (*module, error) {
	resolved, err := safePath(path)
	if err != nil {
		return nil, err
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.open[resolved]
	if m == nil {
		lib := ms.load(resolved)
		if lib == nil {
			return nil, fault.New(api.CodeInvalid, "loading the PKCS#11 module "+path+": the file is no PKCS#11 library, or one that it needs is missing").
				WithField("module-path").WithNext("check module-path, and what ldd says of it")
		}
		m = &module{all: ms, path: path, lib: lib, live: map[*connection]struct{}{}}
		if ms.open == nil {
			ms.open = map[string]*module{}
		}
		ms.open[resolved] = m
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	m.refs++
	return m, nil
}

// start initialises the library if it isn't. modules.mu is held.
func (m *module) start() error {
	if m.ready {
		return nil
	}
	m.calls.Lock()
	defer m.calls.Unlock()
	err := m.lib.Initialize()
	m.ours = !isError(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	if err != nil && m.ours {
		return failed("initialising the PKCS#11 module "+m.path, err).WithNext("check the module's own configuration and its log")
	}
	m.ready = true
	m.generation++
	return nil
}

// stop finalises the library. modules.mu is held.
func (m *module) stop() {
	m.calls.Lock()
	defer m.calls.Unlock()
	if m.ready && m.ours {
		_ = m.lib.Finalize() // what it fails of is gone already
	}
	m.ready = false
	m.generation++
}

// release takes a key's use back; the last one's ends the library's work.
func (m *module) release() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.refs--; m.refs == 0 {
		m.stop()
	}
}

// running starts the library if it isn't, and gives its generation.
func (m *module) running() (int, error) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.refs == 0 {
		return 0, errClosed
	}
	if err := m.start(); err != nil {
		return 0, err
	}
	return m.current(), nil
}

// keep notes a connection that works.
func (m *module) keep(c *connection) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.live[c] = struct{}{}
}

// forget closes a connection.
func (m *module) forget(c *connection) {
	m.all.mu.Lock()
	delete(m.live, c)
	m.all.mu.Unlock()
	c.close()
}

// restart initialises the library anew, and says whether a caller whose token was missing should look again: many modules
// see a token that went and came back only so. It ends all sessions, so it is not done while one connection still works.
func (m *module) restart(seen int) bool {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.current() != seen {
		return true // somebody else did
	}
	for c := range m.live {
		if c.works() {
			return false
		}
		delete(m.live, c)
	}
	m.stop()
	return m.start() == nil
}

func (m *module) current() int {
	m.calls.RLock()
	defer m.calls.RUnlock()
	return m.generation
}

// errStale is that a connection was given up, or its module initialised anew, before anything was asked under it.
var errStale = errors.New("pkcs11: handles of another time")

// call runs f unless the library was initialised anew since generation: a handle of then could be somebody else's now.
func (m *module) call(generation int, f func(library) error) error {
	m.calls.RLock()
	defer m.calls.RUnlock()
	if m.generation != generation {
		return errStale
	}
	return f(m.lib)
}

// safePath resolves a library's path and refuses one that another user could replace or lead elsewhere: the file, and every
// folder above it and above the name that was configured, belong to root or to us, and nobody else may write to them (to
// folders with the sticky bit they may add). What is loaded is the path that was checked.
func safePath(path string) (string, error) {
	what := "loading the PKCS#11 module " + path
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(api.CodeNotFound, what+": there is no such file").WithField("module-path").
			WithNext("install the vendor's library, or correct module-path")
	}
	if err != nil {
		return "", fault.Wrap(api.CodeUnavailable, err, what).WithField("module-path")
	}
	if info, err := os.Lstat(resolved); err != nil || !info.Mode().IsRegular() {
		return "", fault.New(api.CodeInvalid, what+": it isn't a regular file").WithField("module-path").WithNext("correct module-path")
	}
	if replaceable(resolved) || replaceable(filepath.Dir(path)) {
		return "", fault.New(api.CodeWrongState, what+": other users could replace it").WithField("module-path").
			WithNext("the library and every folder above it must belong to root or to the user that runs keyturn, and be writable by nobody else")
	}
	return resolved, nil
}

// replaceable says whether another user could put something else in the place of a file or folder. What can't be looked at
// counts as that.
func replaceable(path string) bool {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || !ours(info) {
			return true
		}
		shared := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		if info.Mode().Perm()&0o022 != 0 && !shared {
			return true
		}
		if path == filepath.Dir(path) {
			return false
		}
	}
}

// ours says whether a file is of root or of the user that this process runs as.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
