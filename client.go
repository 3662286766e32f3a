package keyturn

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// The defaults of a Client, and what it reads of an answer at most.
const (
	DefaultTimeout = 30 * time.Second // of one call; see WithTimeout
	maxAnswer      = 64 << 20         // bytes of one JSON answer
)

// Client calls one keyturn server, or a store in this process, in HTTP's messages. Make one with Dial or NewClient, or
// with embedded.Open. It is safe for concurrent use and keeps connections open for the next call.
type Client struct {
	base    string // scheme and authority, no slash at the end
	http    *http.Client
	token   string
	agent   string
	timeout time.Duration // <= 0: none
	retries int
	broken  error // why every call fails: NewClient can't return it
	close   func() error
}

// NewClient makes a client on a transport that the caller brings: embedded calls handlers in process by it, tests a
// recorder. Requests go to http://keyturn, which the transport need not look at.
func NewClient(rt http.RoundTripper, opts ...Option) *Client {
	o := gather(opts, 0)
	token, err := o.bearer()
	c := newClient("http://keyturn", rt, o, token)
	c.broken = err
	return c
}

func newClient(base string, rt http.RoundTripper, o *options, token string) *Client {
	c := &Client{base: base, token: token, agent: o.agent, timeout: o.timeout, retries: o.retries}
	c.http = &http.Client{Transport: rt, CheckRedirect: neverFollow}
	c.close = sync.OnceValue(func() error {
		c.http.CloseIdleConnections()
		if o.closer != nil {
			return o.closer()
		}
		return nil
	})
	return c
}

// neverFollow keeps the token and the values of a request from going anywhere but the server that was named.
func neverFollow(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Do sends one request and decodes the answer: the way to a route that has no method here. The path begins with a slash;
// in, when not nil, is sent as JSON; out, when not nil, takes the JSON answer. A status outside of 2xx is returned as
// *Error. Only GET and HEAD are ever repeated.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	return c.call(ctx, method, path, in, out, method == http.MethodGet || method == http.MethodHead)
}

// Close lets idle connections go, and closes the store of an embedded client. Calling it again does nothing.
func (c *Client) Close() error { return c.close() }
