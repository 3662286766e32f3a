package keyturn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Dial makes a client of the server at an address. It doesn't connect yet: the first call does.
//
//	https://HOST:PORT     TLS 1.3 or 1.2, checked against the system's authorities or those of WithCAFile, WithCAs
//	http://127.0.0.1:PORT loopback addresses only ("localhost" too): a token never crosses a network in clear
//	unix:///PATH          the server's socket; the peer's user id may stand for a token
//
// Errors are of code invalid, with the field "server" or the option's.
func Dial(server string, opts ...Option) (*Client, error) {
	o := gather(opts, 2)
	u, err := url.Parse(server)
	if err != nil {
		return nil, badServer("it isn't a URL")
	}
	token, err := o.bearer()
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       90 * time.Second,
	}
	base, err := o.transport(tr, u)
	if err != nil {
		return nil, err
	}
	return newClient(base, tr, o, token), nil
}

// transport sets up tr for the kind of address that u is and returns the base of every request's URL.
func (o *options) transport(tr *http.Transport, u *url.URL) (base string, err error) {
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", badServer("it may hold no user, query or fragment")
	}
	if u.Scheme == "unix" {
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return "", badServer("a socket is named unix:///PATH")
		}
		dialer := &net.Dialer{Timeout: 5 * time.Second}
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
		return "http://keyturn", nil
	}
	if u.Path != "" && u.Path != "/" || u.Hostname() == "" {
		return "", badServer("it is written https://HOST:PORT, without a path")
	}
	switch u.Scheme {
	case "https":
		tr.ForceAttemptHTTP2 = false // HTTP/1.1 costs less than half of HTTP/2 per call
		tr.TLSClientConfig, err = o.tls()
		tr.Proxy = http.ProxyFromEnvironment
		return "https://" + u.Host, err
	case "http":
		if !loopback(u.Hostname()) {
			return "", badServer("http:// is for loopback addresses only").WithNext("use https://")
		}
		return "http://" + u.Host, nil
	}
	return "", badServer("it begins with none of https://, http:// and unix://")
}

// tls is the configuration of every https connection: certificates are always checked.
func (o *options) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.cas}
	if o.caFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return nil, fault.Wrap(api.CodeNotFound, err, "reading the file of certificate authorities").WithField("ca")
	}
	if cfg.RootCAs = x509.NewCertPool(); o.cas != nil {
		cfg.RootCAs = o.cas.Clone()
	}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(api.CodeInvalid, "reading the file of certificate authorities: it holds no certificate in PEM").WithField("ca")
	}
	return cfg, nil
}

// loopback says whether a host name reaches this machine only.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func badServer(why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading the server's address: "+why).WithField("server")
}
