// Package remote is what the master-key providers over a network share: an HTTP client that neither waits nor reads nor
// travels further than it must, and the codes of its failures.
//
//	client := remote.Client(limit / remote.Tries)
//	ctx, cancel := context.WithTimeout(ctx, d.limit()) // every operation of a driver is bounded, retries included
//	defer cancel()
//	…
//	return remote.Fault(ctx, err, "unwrapping under the key")
//
// A provider is asked with keyturn's own credential and answers with keys. So its client follows no redirect (the
// credential stays with the host that was configured), takes no compressed answer and none longer than [MaxAnswer], and
// never goes on with an unverified certificate, or without TLS to another machine: there is no switch for either. A proxy
// of the environment (HTTPS_PROXY) is used, as it sees TLS only.
package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxAnswer is how much of an answer is read, in bytes. A wrapped key or a secret takes a few hundred, and no service
// that is spoken to allows secrets of more than 64 KiB.
const MaxAnswer = 256 << 10

// Limit is how long one operation of a provider takes at most, retries included, unless the driver says otherwise.
const Limit = 10 * time.Second

// Tries is how often a driver asks in one operation before it gives up. Each try has its part of the limit.
const Tries = 3

// Client makes an HTTP client for one provider, whose connections and answers (their first bytes) take no longer than try.
// The whole of a request is bounded by its context.
func Client(try time.Duration) *http.Client {
	return &http.Client{Transport: Guard(Transport(try)), CheckRedirect: Stay}
}

// Transport is the client's connections, for libraries that wrap them themselves; around it belongs [Guard].
func Transport(try time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: try, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    try,
		ResponseHeaderTimeout:  try,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Stay is a CheckRedirect that answers with the redirect itself.
func Stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Guard refuses to send without TLS to another machine, and makes reading an answer fail after [MaxAnswer] bytes.
func Guard(next http.RoundTripper) http.RoundTripper { return guard{next} }

type guard struct{ next http.RoundTripper }

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname()) {
		return nil, errNoTLS
	}
	answer, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = &body{ReadCloser: answer.Body, left: MaxAnswer}
	return answer, nil
}

var errNoTLS = fault.New(api.CodeInvalid, "the provider's address has no TLS and leads to another machine: keys would travel in clear").
	WithNext("name it with https://")

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (g guard) CloseIdleConnections() {
	if c, ok := g.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

var errTooLong = errors.New("the answer is too long")

type body struct {
	io.ReadCloser
	left int
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// Fault is the error of a call under ctx that got no usable answer: cancelled when the caller went away, else unavailable,
// too when ctx ran out of time. The text of err, which may quote a request, isn't shown.
func Fault(ctx context.Context, err error, doing string) *fault.Error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Wrap(api.CodeCancelled, ctx.Err(), doing)
	case ctx.Err() != nil:
		return fault.Wrap(api.CodeUnavailable, ctx.Err(), doing)
	case errors.Is(err, errNoTLS):
		return fault.Wrap("", err, doing)
	}
	return fault.Wrap(api.CodeUnavailable, err, doing)
}
