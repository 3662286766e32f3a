// Package vault is what the master-key providers vaultkv and vaulttransit share: a signed-in client of one HashiCorp Vault or
// OpenBao server.
//
// Where the server is and who we are stands in the environment that Vault's own tools read, never in a master key's URL: a
// caller over the network who may name URLs must not choose to whom our token is sent.
//
//	VAULT_ADDR                          https://vault.example.org:8200; http:// only on this machine's loopback
//	VAULT_TOKEN                         a token; renewed here for as long as Vault allows
//	VAULT_TOKEN_FILE                    or a file with one, which somebody else (Vault Agent) keeps fresh; read again when refused
//	VAULT_ROLE_ID, VAULT_SECRET_ID_FILE or an AppRole to sign in with, and again whenever its token has expired
//	VAULT_NAMESPACE, VAULT_CACERT, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY
//
// Each is also read with BAO_ in place of VAULT_, which wins. VAULT_SKIP_VERIFY is refused.
//
// The client is OpenBao's library over the connections of package keyring/remote, held shorter than its defaults: it reads no
// environment by itself, follows no redirect, tries a call at most three times within the limit, and nothing of what a server
// answers is ever part of an error, since servers quote what they are sent.
//
// When a token can't be renewed any more, calls fail with code denied and an error that says what to do. Key-encryption keys
// that are open stay open: see package keyring.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/openbao/openbao/api/v2"

	ktapi "github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

// Config says how to reach Vault. The zero value reads the process's environment.
type Config struct {
	// Lookup replaces os.LookupEnv, for tests.
	Lookup func(name string) (string, bool)
	// Transport replaces the connection to the server, for tests.
	Transport http.RoundTripper
	// Limit is how long one call takes at most, retries and signing in anew included. The default is remote.Limit.
	Limit time.Duration
}

// LimitOpen is how long opening a key takes at most, which is several calls.
func (c Config) LimitOpen() time.Duration { return 3 * c.limit() }

func (c Config) limit() time.Duration {
	if c.Limit > 0 {
		return c.Limit
	}
	return remote.Limit
}

// Client talks to one server as one identity. It is safe for concurrent use.
type Client struct {
	api      *api.Client
	identity *identity
	limit    time.Duration
	idle     func() // closes idle connections

	closed atomic.Bool
	stop   context.CancelFunc // ends keepAlive
	alive  chan struct{}      // closed when keepAlive has ended
}

// Dial reads the configuration and signs in. Errors: invalid for the configuration, denied, unavailable.
func Dial(ctx context.Context, c Config) (*Client, error) {
	s, err := readSettings(c.Lookup)
	if err != nil {
		return nil, err
	}
	conf, err := s.config(c)
	if err != nil {
		return nil, err
	}
	lib, err := api.NewClient(conf)
	if err != nil {
		return nil, fault.Wrap(ktapi.CodeInvalid, err, "reading "+s.names["VAULT_ADDR"]).WithField(s.names["VAULT_ADDR"]).WithNext(nextAddress)
	}
	if s.namespace != "" {
		lib.SetNamespace(s.namespace)
	}
	client := &Client{api: lib, limit: c.limit(), idle: conf.HttpClient.CloseIdleConnections, alive: make(chan struct{})}
	client.identity = s.identity(client)
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	if _, err := client.identity.signIn(ctx, ""); err != nil {
		client.idle()
		return nil, err
	}
	alive, stop := context.WithCancel(context.Background())
	client.stop = stop
	go func() {
		defer close(client.alive)
		client.identity.keepAlive(alive)
	}()
	return client, nil
}

// Close ends the client; an AppRole's token, which nobody else knows, is given back. It may be called twice; calls fail with
// unavailable afterwards.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.stop()
	<-c.alive
	c.identity.signOut()
	c.idle()
	return nil
}

// Read gets a path. The answer is the caller's to wipe. Errors carry the code of the answer: invalid, denied, not_found,
// unavailable; cancelled when ctx is.
func (c *Client) Read(ctx context.Context, path string) ([]byte, error) {
	return c.call(ctx, http.MethodGet, path, nil)
}

// Write posts a JSON body to a path and wipes it, once nobody reads it any more. Else it is as Read.
func (c *Client) Write(ctx context.Context, path string, body []byte) ([]byte, error) {
	return c.call(ctx, http.MethodPost, path, body)
}

// call makes a call, and once more when the token was refused and there is a fresh one.
func (c *Client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	if c.closed.Load() {
		return nil, fault.New(ktapi.CodeUnavailable, "asking Vault: the master key is closed")
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	used := c.api.Token()
	answer, err := c.once(ctx, method, path, used, body)
	if fault.CodeOf(err) == ktapi.CodeDenied {
		fresh, signErr := c.identity.signIn(ctx, used)
		if signErr != nil {
			return nil, signErr
		}
		if fresh {
			answer, err = c.once(ctx, method, path, c.api.Token(), body)
		}
	}
	if err == nil || fault.CodeOf(err) != ktapi.CodeCancelled && ctx.Err() == nil {
		clear(body) // a call that was given up may still be reading it
	}
	var refused *fault.Error
	if errors.As(err, &refused) && refused.Code == ktapi.CodeDenied {
		err = refused.WithNext(c.identity.next())
	}
	return answer, err
}

// once makes a call under a token and reads the whole of its answer.
func (c *Client) once(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	req := c.api.NewRequest(method, "/v1/"+path)
	req.ClientToken, req.BodyBytes = token, body
	resp, err := c.api.RawRequestWithContext(ctx, req)
	if resp != nil {
		defer resp.Body.Close()
	}
	var refused *api.ResponseError
	switch {
	case errors.As(err, &refused):
		return nil, answered(refused.StatusCode)
	case err != nil:
		return nil, unreached(ctx, err)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent:
		return nil, answered(resp.StatusCode)
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		clear(answer)
		return nil, unreached(ctx, err)
	}
	return answer, nil
}

// unreached is the error of a call without an answer, or with a part of one.
func unreached(ctx context.Context, err error) error {
	return remote.Fault(ctx, err, "asking Vault: no whole answer came").
		WithNext("check that VAULT_ADDR is right and the server runs; for a private certificate authority set VAULT_CACERT")
}

// answered is the error of an answer that is no success. The server's own words are left out.
func answered(status int) error {
	code, what, next := ktapi.CodeUnavailable, fmt.Sprintf("asking Vault: it answered with status %d", status), ""
	switch {
	case status >= 300 && status < 400:
		what = "asking Vault: it answered with a redirect, and none is followed"
		next = "have VAULT_ADDR name the active node, or a load balancer that finds it"
	case status == http.StatusBadRequest:
		code, what = ktapi.CodeInvalid, "asking Vault: it refuses the request"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		code, what = ktapi.CodeDenied, "asking Vault: the token has expired, was revoked, or its policy doesn't allow this"
	case status == http.StatusNotFound:
		code, what = ktapi.CodeNotFound, "asking Vault: there is nothing at this path"
	case status == http.StatusTooManyRequests:
		what, next = "asking Vault: it is asked too often (rate limit)", "raise the quota, or try again later"
	case status == http.StatusServiceUnavailable:
		what, next = "asking Vault: it is sealed or in maintenance", "unseal it: vault operator unseal"
	}
	err := fault.New(code, what)
	if next != "" {
		err = err.WithNext(next)
	}
	return err
}
