package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func TestPrivateCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), TLSDir)
	now := time.Now()
	names := []string{"localhost", "127.0.0.1", "::1", "keyturn.example"}
	first, err := privateCertificate(dir, names, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(dir, CAFile))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example", CurrentTime: now}); err == nil {
		t.Error("it is good for any name")
	}
	if first.Leaf.IsCA || first.Leaf.NotAfter.Sub(now) > 398*24*time.Hour {
		t.Errorf("CA %v, until %v", first.Leaf.IsCA, first.Leaf.NotAfter)
	}
	same, err := privateCertificate(dir, names[:2], now.Add(time.Hour))
	if err != nil || !same.Leaf.Equal(first.Leaf) {
		t.Errorf("it was made anew for less: %v", err)
	}
	more, err := privateCertificate(dir, append(names, "new.example"), now)
	if err != nil || more.Leaf.Equal(first.Leaf) || more.Leaf.VerifyHostname("new.example") != nil {
		t.Errorf("for one name more: %v", err)
	}
	late := now.Add(serverLife - serverRenew/2)
	renewed, err := privateCertificate(dir, names, late)
	if err != nil || !renewed.Leaf.NotAfter.After(late.Add(serverRenew)) {
		t.Errorf("about to expire: %v, until %v", err, renewed.Leaf.NotAfter)
	}
	if after, err := os.ReadFile(filepath.Join(dir, CAFile)); err != nil || string(after) != string(pem) {
		t.Errorf("the authority changed, and every client with it: %v", err)
	}
}

func TestCertificateThatAKillLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), TLSDir)
	now := time.Now()
	if _, err := privateCertificate(dir, []string{"localhost"}, now); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{serverCertFile, serverKeyFile} {
		if err := os.Remove(filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
		if _, err := privateCertificate(dir, []string{"localhost"}, now); err != nil {
			t.Errorf("without %s: %v", gone, err)
		}
	}
	// A new key whose certificate was not written any more.
	_, key, err := issue(serverTemplate(nil, now), authorityOf(t, dir, now))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, serverKeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := privateCertificate(dir, []string{"localhost"}, now); err != nil {
		t.Errorf("a pair that doesn't match: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, CAFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := privateCertificate(dir, []string{"new.example"}, now); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a damaged authority: %v", err)
	}
}

// A private authority that another user put there, or whose key others know, is not made the server's.
func TestPlantedAuthorityIsRefused(t *testing.T) {
	now := time.Now()
	for name, plant := range map[string]func(dir string) error{
		"a key that others can read": func(dir string) error { return os.Chmod(filepath.Join(dir, caKeyFile), 0o640) },
		"the server's key":           func(dir string) error { return os.Chmod(filepath.Join(dir, serverKeyFile), 0o604) },
		"a link": func(dir string) error {
			moved := filepath.Join(filepath.Dir(dir), "elsewhere")
			return errors.Join(os.Rename(filepath.Join(dir, caKeyFile), moved), os.Symlink(moved, filepath.Join(dir, caKeyFile)))
		},
		"another user's authority": func(dir string) error { return chownOther(filepath.Join(dir, CAFile)) },
		"another user's directory": chownOther,
	} {
		dir := filepath.Join(t.TempDir(), TLSDir)
		if _, err := privateCertificate(dir, []string{"localhost"}, now); err != nil {
			t.Fatal(err)
		}
		err := plant(dir)
		if errors.Is(err, fs.ErrPermission) {
			continue // only root can give files away; the rule itself is tested by ownedAs's other cases
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := privateCertificate(dir, []string{"localhost"}, now); fault.CodeOf(err) != api.CodeDenied || fault.NextOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func chownOther(path string) error { return os.Chown(path, 65534, 65534) }

func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key, err := issue(serverTemplate([]string{"localhost", "127.0.0.1"}, time.Now()), authorityOf(t, dir, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	if err := os.WriteFile(certFile, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadPair(certFile, keyFile); fault.CodeOf(err) != api.CodeWrongState || fault.FieldOf(err) != "tls.keyFile" {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(keyFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadPair(certFile, certFile); err == nil {
		t.Error("a certificate for a key")
	}
	if _, err := loadPair(certFile, keyFile); err != nil {
		t.Error(err)
	}
}

func authorityOf(t *testing.T, dir string, now time.Time) tls.Certificate {
	t.Helper()
	ca, err := authority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}
