package vault

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	ktapi "github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/remote"
)

const nextAddress = "set VAULT_ADDR to the server's address: https://vault.example.org:8200"

// settings is what the environment says. names gives for "VAULT_ADDR" the variable that was read, for
// errors: that one, or BAO_ADDR.
type settings struct {
	address, namespace               string
	caCert, clientCert, clientKey    string
	token, tokenFile                 string
	roleID, secretIDFile, skipVerify string
	names                            map[string]string
}

func readSettings(lookup func(string) (string, bool)) (*settings, error) {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	s := &settings{names: map[string]string{}}
	for name, into := range map[string]*string{
		"VAULT_ADDR": &s.address, "VAULT_NAMESPACE": &s.namespace, "VAULT_CACERT": &s.caCert, "VAULT_CLIENT_CERT": &s.clientCert, "VAULT_CLIENT_KEY": &s.clientKey,
		"VAULT_TOKEN": &s.token, "VAULT_TOKEN_FILE": &s.tokenFile, "VAULT_ROLE_ID": &s.roleID, "VAULT_SECRET_ID_FILE": &s.secretIDFile, "VAULT_SKIP_VERIFY": &s.skipVerify,
	} {
		s.names[name] = name
		for _, as := range []string{strings.Replace(name, "VAULT_", "BAO_", 1), name} {
			if v, ok := lookup(as); ok && v != "" {
				*into, s.names[name] = v, as
				break
			}
		}
	}
	return s, s.check()
}

// check refuses what is missing, contradicts itself, or would be less safe than it looks.
func (s *settings) check() error {
	if s.skipVerify != "" {
		return fault.New(ktapi.CodeInvalid, "signing in to Vault: "+s.names["VAULT_SKIP_VERIFY"]+" is set, and certificates are always verified here").WithField(s.names["VAULT_SKIP_VERIFY"]).
			WithNext("unset it; for a private certificate authority set VAULT_CACERT to its certificate")
	}
	if err := s.checkAddress(); err != nil {
		return err
	}
	ways := 0
	for _, set := range []bool{s.token != "", s.tokenFile != "", s.roleID != "" || s.secretIDFile != ""} {
		if set {
			ways++
		}
	}
	role, file := s.roleID != "", s.secretIDFile != ""
	if ways != 1 || role != file {
		return fault.New(ktapi.CodeInvalid, "signing in to Vault: exactly one way to sign in must be configured").WithField("VAULT_TOKEN").
			WithNext("set VAULT_TOKEN, or VAULT_TOKEN_FILE, or both VAULT_ROLE_ID and VAULT_SECRET_ID_FILE, and none of the others")
	}
	if !printable(s.token) {
		return fault.New(ktapi.CodeInvalid, "signing in to Vault: what stands in "+s.names["VAULT_TOKEN"]+" is no token").WithField(s.names["VAULT_TOKEN"]).WithNext("set it to a token, and nothing else")
	}
	return nil
}

// printable says whether a text can be a token or a secret id: one word of visible ASCII.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// checkAddress: plain HTTP carries tokens and keys in clear, so it stays on this machine.
func (s *settings) checkAddress() error {
	bad := func(why string) error {
		return fault.New(ktapi.CodeInvalid, "signing in to Vault: "+s.names["VAULT_ADDR"]+" "+why).WithField(s.names["VAULT_ADDR"]).WithNext(nextAddress)
	}
	if s.address == "" {
		return bad("is not set")
	}
	u, err := url.Parse(s.address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return bad("is no address of a server")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return bad("must begin with https://; http:// is for servers on this machine's loopback only")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// config is the library's configuration. It reads no variable by itself.
func (s *settings) config(own Config) (*api.Config, error) {
	c := api.NewConfig()
	if c.Error != nil {
		return nil, fault.Wrap(ktapi.CodeInternal, c.Error, "preparing to ask Vault")
	}
	c.Address, c.DisableRedirects = s.address, true
	c.MaxRetries, c.MinRetryWait = remote.Tries-1, own.limit()/100
	c.Backoff = func(least, _ time.Duration, attempt int, _ *http.Response) time.Duration {
		return least << attempt // a Retry-After of minutes would only hide the reason until the limit
	}
	transport := http.RoundTripper(remote.Transport(own.limit() / remote.Tries))
	c.HttpClient = &http.Client{Transport: transport}
	if s.caCert != "" || s.clientCert != "" || s.clientKey != "" {
		if err := c.ConfigureTLS(&api.TLSConfig{CACert: s.caCert, ClientCert: s.clientCert, ClientKey: s.clientKey}); err != nil {
			return nil, fault.Wrap(ktapi.CodeInvalid, err, "reading the certificates for Vault").
				WithNext("check the files of VAULT_CACERT, VAULT_CLIENT_CERT and VAULT_CLIENT_KEY: PEM, readable by the user that runs keyturn")
		}
	}
	if own.Transport != nil {
		transport = own.Transport
	}
	c.HttpClient = &http.Client{Transport: remote.Guard(transport), CheckRedirect: remote.Stay}
	return c, nil
}
