//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// maxSessions bounds the sessions of one key. HSMs have few, and reach their speed with fewer.
const maxSessions = 16

// connection is a key that was found on a token, logged in to, with its pool of sessions. When one of them fails it is
// given up whole: what ends one session mostly ends all. Its methods return return values of the module as they are
// (p11.Error, or errStale: "the connection is lost"), and errors of package fault for everything that another connection wouldn't cure.
type connection struct {
	module     *module
	generation int // of the module, that the handles are of
	slot       uint
	key        p11.ObjectHandle
	id         [idSize]byte

	free chan p11.SessionHandle // idle sessions
	lost chan struct{}          // closed when the connection is given up

	mu     sync.Mutex // guards what follows
	opened int        // sessions, at least the first one
	limit  int        // of opened
	closed bool
}

// connect finds the token, logs in, finds the key and takes its fingerprint.
func (d *Driver) connect(m *module, generation int, at address) (*connection, error) {
	c := &connection{
		module: m, generation: generation, opened: 1, limit: maxSessions,
		free: make(chan p11.SessionHandle, maxSessions), lost: make(chan struct{}),
	}
	err := m.call(generation, func(lib library) error {
		slot, info, err := findToken(lib, at)
		if err != nil {
			return err
		}
		s, err := openSession(lib, slot, 0)
		if err != nil {
			return err
		}
		if err := c.prepare(d, lib, s, at, info); err != nil {
			_ = lib.CloseSession(s)
			return err
		}
		c.slot = slot
		c.free <- s
		return nil
	})
	if err != nil && !isFault(err) {
		err = failed("connecting to the HSM", err)
	}
	return c, err
}

func openSession(lib library, slot, flags uint) (p11.SessionHandle, error) {
	s, err := lib.OpenSession(slot, p11.CKF_SERIAL_SESSION|flags)
	if isError(err, p11.CKR_SESSION_COUNT) {
		return 0, fault.Wrap(api.CodeUnavailable, err, "connecting to the HSM: its token has no session left").
			WithNext("end other programs that use the token, or raise its number of sessions")
	}
	if err != nil {
		return 0, failed("opening a session with the HSM's token", err)
	}
	return s, nil
}

func (c *connection) prepare(d *Driver, lib library, s p11.SessionHandle, at address, info p11.TokenInfo) (err error) {
	if err := d.logIn(lib, s, at, info); err != nil {
		return err
	}
	if c.key, err = findKey(lib, s, at); err != nil {
		return err
	}
	if c.id, err = fingerprintOf(lib, s, c.key); err != nil {
		return err
	}
	again, err := fingerprintOf(lib, s, c.key)
	if err == nil && again != c.id {
		return errOwnIV
	}
	return err
}

// take waits for a session. Where the token gives no more of them, those that are open have to do.
func (c *connection) take(ctx context.Context) (p11.SessionHandle, error) {
	if err := left(ctx); err != nil {
		return 0, err
	}
	select {
	case s := <-c.free:
		return s, nil
	default:
	}
	if s, err := c.another(); s != 0 || err != nil {
		return s, err
	}
	select {
	case s := <-c.free:
		return s, nil
	case <-c.lost:
		return 0, errStale
	case <-ctx.Done():
		return 0, left(ctx)
	}
}

// another opens one more session; none (0, which is no session's handle) when there may be no more.
func (c *connection) another() (s p11.SessionHandle, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened >= c.limit {
		return 0, nil
	}
	err = c.module.call(c.generation, func(lib library) (err error) {
		s, err = lib.OpenSession(c.slot, p11.CKF_SERIAL_SESSION)
		return err
	})
	if isError(err, p11.CKR_SESSION_COUNT) {
		c.limit = c.opened
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c.opened++
	return s, nil
}

// give returns a session.
func (c *connection) give(s p11.SessionHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.end(s)
		return
	}
	c.free <- s // never waits: there is room for all
}

// close gives the connection up: sessions in use end when they are returned. With its last session in the process a token
// logs out by itself.
func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	close(c.lost)
	for {
		select {
		case s := <-c.free:
			c.end(s)
		default:
			return
		}
	}
}

func (c *connection) end(s p11.SessionHandle) {
	_ = c.module.call(c.generation, func(lib library) error { return lib.CloseSession(s) }) // one that fails is gone already
}

// works proves that the connection isn't lost. One whose sessions are all in use is taken to work.
func (c *connection) works() bool {
	select {
	case s := <-c.free:
		defer c.give(s)
		return c.module.call(c.generation, func(lib library) error {
			_, err := fingerprintOf(lib, s, c.key)
			return err
		}) == nil
	default:
		return true
	}
}

// seal encrypts, and refuses a module that doesn't do it as it was told.
func seal(lib library, s p11.SessionHandle, key p11.ObjectHandle, iv, data, plain []byte) ([]byte, error) {
	params := p11.NewGCMParams(iv, data, tagSize*8)
	defer params.Free()
	if err := lib.EncryptInit(s, gcm(params), key); err != nil {
		return nil, err
	}
	out, err := lib.Encrypt(s, plain)
	if err == nil && (len(out) != len(plain)+tagSize || string(params.IV()) != string(iv)) {
		return nil, errOwnIV
	}
	return out, err
}

// open decrypts. suspect says that the call got as far as the ciphertext: that may be what was wrong.
func open(lib library, s p11.SessionHandle, key p11.ObjectHandle, iv, data, sealed []byte) (plain []byte, suspect bool, err error) {
	params := p11.NewGCMParams(iv, data, tagSize*8)
	defer params.Free()
	if err := lib.DecryptInit(s, gcm(params), key); err != nil {
		return nil, false, err
	}
	plain, err = lib.Decrypt(s, sealed)
	return plain, err != nil, err
}

func gcm(params *p11.GCMParams) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}
}

func fingerprintOf(lib library, s p11.SessionHandle, key p11.ObjectHandle) (id [idSize]byte, err error) {
	sealed, err := seal(lib, s, key, printIV, printData, printMessage)
	if err != nil {
		return id, err
	}
	return fingerprint(sealed), nil
}

var errOwnIV = fault.New(api.CodeWrongState, "using a PKCS#11 master key: the module doesn't encrypt by AES-GCM under the initialisation vector that it is given").
	WithNext("see docs/providers/pkcs11.md for what a module must do; some do it outside of their FIPS mode only")
