//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"errors"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// key is a master key on a token.
type key struct {
	driver *Driver
	at     address
	module *module
	id     [idSize]byte // set by Open, then fixed

	connecting chan struct{} // holds one element while somebody connects

	mu     sync.Mutex  // guards what follows
	now    *connection // nil between a loss and the next call
	closed bool
}

func (k *key) URL() string        { return k.at.String() }
func (k *key) Provider() string   { return scheme }
func (k *key) Kind() keyring.Kind { return keyring.Wraps }
func (k *key) ID() string         { return idOf(k.id) }

// Wrap has the token encrypt m.
func (k *key) Wrap(ctx context.Context, m *material.Bytes, b keyring.Binding) ([]byte, error) {
	data, err := dataOf(k.id, b)
	if err != nil {
		return nil, err
	}
	if err := left(ctx); err != nil {
		return nil, err
	}
	if m.Len() > maxSecret {
		return nil, fault.Newf(api.CodeTooLarge, "wrapping under a PKCS#11 master key: at most %d bytes", maxSecret)
	}
	var wrapped []byte
	err = k.do(ctx, func(lib library, s p11.SessionHandle, key p11.ObjectHandle) error {
		iv := newIV()
		sealed, err := seal(lib, s, key, iv, data, m.Expose())
		if err != nil {
			return err
		}
		wrapped = append(append(header(k.id), iv...), sealed...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keyring.Commit(wrapped, m, b)
}

// Unwrap has the token decrypt a blob.
func (k *key) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	return keyring.Uncommit(blob, b, func(wrapped []byte) (*material.Bytes, error) { return k.unwrap(ctx, wrapped, b) })
}

// unwrap asks the token. Modules have many words for a wrong tag, and SoftHSM's (CKR_GENERAL_ERROR) is also
// its word for everything else. So after a failure the blob is blamed only if the key still works at that moment.
func (k *key) unwrap(ctx context.Context, wrapped []byte, b keyring.Binding) (*material.Bytes, error) {
	data, err := dataOf(k.id, b)
	if err != nil {
		return nil, err
	}
	if err := left(ctx); err != nil {
		return nil, err
	}
	iv, sealed, err := split(wrapped, k.id)
	if err != nil {
		return nil, err
	}
	var plain []byte
	err = k.do(ctx, func(lib library, s p11.SessionHandle, key p11.ObjectHandle) (err error) {
		var suspect bool
		if plain, suspect, err = open(lib, s, key, iv, data, sealed); !suspect {
			return err
		}
		if id, broken := fingerprintOf(lib, s, key); broken == nil && id == k.id {
			return fault.New(api.CodeIntegrity, "unwrapping under a PKCS#11 master key: it was changed, or belongs to something else")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return material.New(plain), nil
}

// do runs f with a session. A connection that turns out to be lost is replaced once; one that others found lost before
// anything was asked under it doesn't count.
func (k *key) do(ctx context.Context, f func(library, p11.SessionHandle, p11.ObjectHandle) error) error {
	for again := false; ; {
		c, err := k.connection(ctx)
		if err != nil {
			return err
		}
		s, err := c.take(ctx)
		if err == nil {
			err = c.module.call(c.generation, func(lib library) error { return f(lib, s, c.key) })
			if err != nil && !isFault(err) {
				k.drop(c)
			}
			c.give(s)
		} else if !isFault(err) {
			k.drop(c)
		}
		stale := errors.Is(err, errStale)
		switch {
		case err == nil || isFault(err):
			return err
		case again && !stale:
			return failed("using a PKCS#11 master key", err)
		}
		again = again || !stale
	}
}

// connection is the one in use, or a new one. One caller connects while the others wait.
func (k *key) connection(ctx context.Context) (*connection, error) {
	if c, err := k.current(); c != nil || err != nil {
		return c, err
	}
	select {
	case k.connecting <- struct{}{}:
		defer func() { <-k.connecting }()
	case <-ctx.Done():
		return nil, left(ctx)
	}
	if c, err := k.current(); c != nil || err != nil {
		return c, err
	}
	c, err := k.connect(ctx)
	if err == nil {
		return c, k.adopt(c)
	}
	switch fault.CodeOf(err) {
	case api.CodeDenied, api.CodeCancelled, api.CodeUnavailable:
		return nil, err
	}
	return nil, fault.Wrap(api.CodeUnavailable, err, "connecting to the HSM again")
}

// connect makes a connection. A token that is missing may be there once the module looks again.
func (k *key) connect(ctx context.Context) (*connection, error) {
	for again := false; ; again = true {
		if err := left(ctx); err != nil {
			return nil, err
		}
		generation, err := k.module.running()
		if err != nil {
			return nil, err
		}
		c, err := k.driver.connect(k.module, generation, k.at)
		if err == nil {
			k.module.keep(c)
			return c, nil
		}
		code := fault.CodeOf(err)
		missing := code == api.CodeNotFound || code == api.CodeUnavailable
		if again || !missing || !k.module.restart(generation) {
			return nil, err
		}
	}
}

// adopt makes c the connection in use, if it leads to the same key.
func (k *key) adopt(c *connection) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		k.module.forget(c)
		return errClosed
	case c.id != k.id:
		k.module.forget(c)
		return fault.New(api.CodeUnavailable, "connecting to the HSM again: another key lies there now under the URL's names").
			WithField("object").WithNext("put the right token back, or the right key")
	}
	k.now = c
	return nil
}

func (k *key) current() (*connection, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errClosed
	}
	return k.now, nil
}

// drop gives a lost connection up; the next call connects anew.
func (k *key) drop(c *connection) {
	k.mu.Lock()
	if k.now == c {
		k.now = nil
	}
	k.mu.Unlock()
	k.module.forget(c)
}

// Close lets the key go. The last key of a module ends the module's work.
func (k *key) Close() error {
	k.mu.Lock()
	c, again := k.now, k.closed
	k.now, k.closed = nil, true
	k.mu.Unlock()
	if again {
		return nil
	}
	if c != nil {
		k.module.forget(c)
	}
	k.module.release()
	return nil
}
