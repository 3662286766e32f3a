// Package vaulttest gives tests a real Vault: a throw-away server of HashiCorp Vault 1.13.2, built from tools/vaultserver,
// or of the vault or bao binary that KEYTURN_TEST_VAULT names.
//
//	func TestMain(m *testing.M) { vaulttest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		v := vaulttest.Start(t)
//		mount := v.Mount(t, "transit", nil)             // an engine of its own
//		v.Do(t, "POST", mount+"/keys/phi", nil)         // as root
//		token := v.Token(t, `path "…" { … }`, "1h")     // of a policy
//		…
//	}
//
// It is a server as people run it, not Vault's development mode: file storage, initialised and unsealed by the harness. One
// serves the whole test process (half a second); tests that seal, stop or encrypt the way to it take one of their own with
// [Own]. A server lives in a temporary directory of mode 0700, listens on a loopback port, and is a child of a small shell
// that holds the other end of a pipe of this process: when the process ends, in whatever way, the shell stops the server and
// removes the directory.
//
// Environment:
//
//	KEYTURN_TEST_VAULT     path of a vault or bao binary to use in place of the one that make vault builds
//	KEYTURN_TEST_NO_VAULT  1 skips the tests that need Vault, by name; without it, a missing binary fails them
package vaulttest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Options choose what a server is like. The zero value speaks plain HTTP.
type Options struct {
	// TLS has it speak HTTPS with a certificate of its own; Server.CA names the file of the authority.
	TLS bool
}

// shared is the server of this process, made by the first Start.
var shared struct {
	sync.Mutex // guards the fields below
	server     *Server
	err        error
}

// Main runs the tests and then stops the shared server. It doesn't return.
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "vaulttest:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Start returns the server of this test process, and makes it at the first call. It must not be sealed or stopped: other
// tests use it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	skipIfTold(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = New(context.Background(), Options{})
	}
	if shared.err != nil {
		tb.Fatalf("starting Vault: %v", shared.err)
	}
	return shared.server
}

// Own makes a server for this test alone, which it may seal and stop; it is removed when the test ends.
func Own(tb testing.TB, o Options) *Server {
	tb.Helper()
	skipIfTold(tb)
	s, err := New(context.Background(), o)
	if err != nil {
		tb.Fatalf("starting Vault: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("stopping Vault: %v", err)
		}
	})
	return s
}

func skipIfTold(tb testing.TB) {
	tb.Helper()
	if os.Getenv("KEYTURN_TEST_NO_VAULT") == "1" {
		tb.Skip("needs Vault, and KEYTURN_TEST_NO_VAULT=1")
	}
}
