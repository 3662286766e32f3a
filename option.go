package keyturn

import (
	"crypto/x509"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Option configures a Client.
type Option func(*options)

// options holds what the options said; its zero value is what a caller without options gets.
type options struct {
	token     string
	tokenFile string
	caFile    string
	cas       *x509.CertPool
	timeout   time.Duration
	retries   int
	agent     string
	closer    func() error
}

// WithToken authenticates every request with a bearer token ("kt_…"). Never put one on a command line.
func WithToken(token string) Option { return func(o *options) { o.token = token } }

// WithTokenFile reads the bearer token from a file, once, when the client is made. Blanks around it are ignored. A file
// that others than its owner may read is refused.
func WithTokenFile(path string) Option { return func(o *options) { o.tokenFile = path } }

// WithCAFile makes Dial trust the PEM certificates in a file instead of the system's authorities: the private CA that a
// server makes in its data directory, for one.
func WithCAFile(path string) Option { return func(o *options) { o.caFile = path } }

// WithCAs makes Dial trust the authorities of a pool instead of the system's.
func WithCAs(pool *x509.CertPool) Option { return func(o *options) { o.cas = pool } }

// WithTimeout bounds one call from sending to the last byte of the answer; streams (audit, job watch) are bounded by
// their context alone. 0 means the default of 30 seconds, a negative value no limit.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithRetries sets how often a call that changes nothing is sent again when the server can't be reached or says that it
// is unavailable. Calls that change something are never repeated. Dial's default is 2, NewClient's 0.
func WithRetries(n int) Option { return func(o *options) { o.retries = n } }

// WithUserAgent names the program in the server's log.
func WithUserAgent(agent string) Option { return func(o *options) { o.agent = agent } }

// WithCloser has Client.Close call f, once: embedded closes its store by it.
func WithCloser(f func() error) Option { return func(o *options) { o.closer = f } }

// gather applies opts over the defaults.
func gather(opts []Option, retries int) *options {
	o := &options{retries: retries, timeout: DefaultTimeout, agent: "keyturn-go"}
	for _, opt := range opts {
		opt(o)
	}
	if o.timeout == 0 {
		o.timeout = DefaultTimeout
	}
	return o
}

// bearer is the token to send, empty for none.
func (o *options) bearer() (string, error) {
	token := o.token
	if o.tokenFile != "" {
		b, err := readPrivate(o.tokenFile)
		if err != nil {
			return "", err
		}
		token = string(b)
	}
	token = strings.TrimSpace(token)
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fault.New(api.CodeInvalid, "reading the token: it holds blanks or characters that no token has").WithField("token")
	}
	return token, nil
}

// readPrivate reads a small file that must be its owner's alone.
func readPrivate(path string) ([]byte, error) {
	const limit = 64 << 10
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.Wrap(api.CodeNotFound, err, "reading the token file").WithField("token-file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(api.CodeWrongState, "reading the token file: others may read it too").
			WithField("token-file").WithNext("chmod 600 it; if others may have read it, make a new token: keyturn principal token NAME")
	}
	if info.Size() > limit || !info.Mode().IsRegular() {
		return nil, fault.New(api.CodeInvalid, "reading the token file: it isn't a small regular file").WithField("token-file")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "reading the token file").WithField("token-file")
	}
	return b, nil
}
