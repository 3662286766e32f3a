package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The files of tls/. The authority's key stays on this machine and signs nothing but server.crt.
const (
	caKeyFile      = "ca.key"
	serverCertFile = "server.crt"
	serverKeyFile  = "server.key"
)

// How long certificates are valid, and how early a new one is made. 398 days is the most that common clients accept of a
// server certificate.
const (
	caLife      = 10 * 365 * 24 * time.Hour
	serverLife  = 397 * 24 * time.Hour
	serverRenew = 30 * 24 * time.Hour
)

// privateCertificate is the server certificate for names, signed by the private authority in dir. Both are made when they
// are not there; the server's is made anew when it doesn't cover names or is about to expire.
func privateCertificate(dir string, names []string, now time.Time) (tls.Certificate, error) {
	if err := openDir(dir, true); err != nil {
		return tls.Certificate{}, err
	}
	if err := mustBeOurs(dir); err != nil {
		return tls.Certificate{}, err
	}
	certPath, keyPath := filepath.Join(dir, serverCertFile), filepath.Join(dir, serverKeyFile)
	if cert, err := tls.LoadX509KeyPair(certPath, keyPath); err == nil && serves(cert.Leaf, names, now) {
		return cert, nil
	}
	ca, err := authority(dir, now)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, key, err := issue(serverTemplate(names, now), ca)
	if err != nil {
		return tls.Certificate{}, err
	}
	// The key goes first: a kill between the two leaves a pair that doesn't match, which the next start replaces.
	if err := writeFile(keyPath, key); err != nil {
		return tls.Certificate{}, err
	}
	if err := writeFile(certPath, append(leaf, pemOf("CERTIFICATE", ca.Certificate[0])...)); err != nil {
		return tls.Certificate{}, err
	}
	return loadPair(certPath, keyPath)
}

// mustBeOurs refuses a directory tls/, or a file in it, that belongs to another user than this process and the data
// directory, that is a link, or a key that others can read or change: whoever could enter the data directory before it was
// closed might have put an authority of his own there, which clients would trust from then on.
func mustBeOurs(dir string) error {
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "looking at the data directory").WithField("dir")
	}
	for _, name := range []string{"", CAFile, caKeyFile, serverCertFile, serverKeyFile} {
		info, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fault.Wrap(api.CodeUnavailable, err, "looking at the private authority in tls/").WithField("tls")
		case info.Mode().Type()&^fs.ModeDir != 0 || info.IsDir() != (name == ""):
			return planted(name, "it is not a plain file")
		case !ownedAs(info, parent):
			return planted(name, "it belongs to another user")
		case (name == caKeyFile || name == serverKeyFile) && info.Mode().Perm()&0o077 != 0:
			return planted(name, "others can read or change it")
		}
	}
	return nil
}

func planted(name, why string) error {
	return fault.New(api.CodeDenied, "reading the private authority in tls/"+name+": "+why).WithField("tls").
		WithNext("if you didn't put it there, move the directory tls/ away to have a new one made, and give clients its ca.crt")
}

// loadPair reads a certificate and its key. The key must be 0600.
func loadPair(certPath, keyPath string) (tls.Certificate, error) {
	info, err := os.Stat(keyPath)
	if err != nil {
		return tls.Certificate{}, fault.Wrap(api.CodeInvalid, err, "reading the TLS key").WithField("tls.keyFile")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return tls.Certificate{}, fault.New(api.CodeWrongState, "reading the TLS key: others may read it too").WithField("tls.keyFile").WithNext("chmod 600 it")
	}
	cert, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return tls.Certificate{}, fault.Wrap(api.CodeInvalid, err, "reading the TLS certificate and key: they are not a PEM pair").WithField("tls.certFile")
	}
	return cert, nil
}

// serves says whether a certificate covers all names and will for a while.
func serves(leaf *x509.Certificate, names []string, now time.Time) bool {
	if leaf == nil || now.Before(leaf.NotBefore) || now.Add(serverRenew).After(leaf.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(names, func(name string) bool { return leaf.VerifyHostname(name) != nil })
}

// authority loads the private authority or makes it.
func authority(dir string, now time.Time) (tls.Certificate, error) {
	certPath, keyPath := filepath.Join(dir, CAFile), filepath.Join(dir, caKeyFile)
	ca, err := tls.LoadX509KeyPair(certPath, keyPath)
	switch {
	case err == nil && now.Before(ca.Leaf.NotAfter.Add(-serverLife)):
		return ca, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return ca, fault.Wrap(api.CodeInvalid, err, "reading the private authority in tls/: it is damaged").
			WithField("tls").WithNext("move the directory tls/ away to have a new one made, and give clients its ca.crt")
	}
	cert, key, err := issue(authorityTemplate(now), tls.Certificate{})
	if err != nil {
		return ca, err
	}
	if err := writeFile(keyPath, key); err != nil {
		return ca, err
	}
	if err := writeFile(certPath, cert); err != nil {
		return ca, err
	}
	return tls.LoadX509KeyPair(certPath, keyPath)
}

func authorityTemplate(now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "keyturn private authority", Organization: []string{"keyturn"}},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife),
	}
}

func serverTemplate(names []string, now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "keyturn server", Organization: []string{"keyturn"}}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(serverLife),
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return t
}

// issue makes an ECDSA P-256 key and a certificate of it, signed by parent, or by itself when parent is empty. Both are PEM.
func issue(template *x509.Certificate, parent tls.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fault.Wrap(api.CodeInternal, err, "making a TLS key")
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, fault.Wrap(api.CodeInternal, err, "making a serial number")
	}
	signer, issuer := any(private), template
	if parent.Leaf != nil {
		signer, issuer = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &private.PublicKey, signer)
	if err != nil {
		return nil, nil, fault.Wrap(api.CodeInternal, err, "signing a TLS certificate")
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fault.Wrap(api.CodeInternal, err, "encoding a TLS key")
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", pkcs8), nil
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
