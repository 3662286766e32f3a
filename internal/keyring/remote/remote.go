// Package remote is what the master-key providers over a network share: an HTTP client that neither waits nor reads nor
// travels further than it must, and the codes of its failures.
//
//	client := remote.Client()
//	ctx, cancel := context.WithTimeout(ctx, d.limit()) // every operation of a driver is bounded, retries included
//	defer cancel()
//	…
//	return remote.Fault(ctx, err, "unwrapping under the key")
//
// A provider is asked with keyturn's own credential and answers with keys. So its client follows no redirect (the
// credential stays with the host that was configured), takes no compressed answer and none longer than [MaxAnswer], and
// never goes on with an unverified certificate: there is no switch for that. A proxy of the environment (HTTPS_PROXY) is
// used, as it sees TLS only.
package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// MaxAnswer is how much of an answer is read, in bytes. A wrapped key or a secret takes a few hundred, and no service
// that is spoken to allows secrets of more than 64 KiB.
const MaxAnswer = 256 << 10

// Limit is how long one operation of a provider takes at most, retries included, unless the driver says otherwise.
const Limit = 10 * time.Second

// Client makes an HTTP client for one provider. It has no timeout of its own: requests carry a context with one.
func Client() *http.Client {
	return &http.Client{Transport: limited{Transport()}, CheckRedirect: Stay}
}

// Transport is the client's connections, for libraries that wrap them themselves; they must then limit answers
// with [LimitAnswers].
func Transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Stay is a CheckRedirect that answers with the redirect itself.
func Stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// LimitAnswers makes reading an answer fail after [MaxAnswer] bytes.
func LimitAnswers(next http.RoundTripper) http.RoundTripper { return limited{next} }

type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = &body{ReadCloser: answer.Body, left: MaxAnswer}
	return answer, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (l limited) CloseIdleConnections() {
	if c, ok := l.next.(interface{ CloseIdleConnections() }); ok {
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
	code := api.CodeUnavailable
	if errors.Is(ctx.Err(), context.Canceled) {
		code = api.CodeCancelled
	}
	return fault.Wrap(code, err, doing)
}
