package vaulttest_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// The server is a real one: what it seals it opens, and it keeps policies.
func TestSharedServer(t *testing.T) {
	v := vaulttest.Start(t)
	transit := v.Mount(t, "transit", nil)
	v.Do(t, "POST", transit+"/keys/k", nil)
	answer := v.Do(t, "POST", transit+"/encrypt/k", map[string]any{"plaintext": "aGk="})
	if !bytes.Contains(answer, []byte(`"ciphertext":"vault:v1:`)) {
		t.Errorf("encrypting answered %s", answer)
	}
	if again := vaulttest.Start(t); again != v {
		t.Error("two calls gave two servers")
	}
	if token := v.Token(t, `path "secret/x" { capabilities = ["read"] }`, "1h"); token == "" || token == v.RootToken {
		t.Error("no token of its own")
	}
}

func TestSealedServer(t *testing.T) {
	v := vaulttest.Own(t, vaulttest.Options{TLS: true})
	if !strings.HasPrefix(v.URL, "https://127.0.0.1:") {
		t.Fatalf("it is at %s", v.URL)
	}
	v.Seal(t)
	if _, err := v.Call(t.Context(), "GET", "sys/mounts", nil); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("sealed, it answers with error %v", err)
	}
	v.Unseal(t)
	v.Do(t, "GET", "sys/mounts", nil)
}

func TestCloseLeavesNothing(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_NO_VAULT") == "1" {
		t.Skip("needs Vault, and KEYTURN_TEST_NO_VAULT=1")
	}
	v, err := vaulttest.New(t.Context(), vaulttest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pid := v.PID()
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	for range 2 {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(v.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", v.Dir(), err)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); !os.IsNotExist(err) {
		t.Errorf("process %d still runs (%v)", pid, err)
	}
}

// Of several who want the server built at once, one builds it; a build that failed leaves nothing that could be taken for one.
// The compiler is a script that takes notes.
func TestBuildsOnce(t *testing.T) {
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes")
	compiler := func(end string) {
		script := "#!/bin/sh\necho built >>'" + notes + "'\nwhile [ $# -gt 1 ]; do [ \"$1\" = -o ] && echo binary >\"$2\"; shift; done\n" + end
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("KEYTURN_TEST_VAULT", "")
	compiler("exit 1")
	if _, err := vaulttest.Build(t.Context(), io.Discard); err == nil {
		t.Error("a build that failed is taken for one")
	}
	if path, err := vaulttest.Find(); err == nil {
		t.Errorf("after a build that failed there is %s", path)
	}
	compiler("exit 0")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			path, err := vaulttest.Build(t.Context(), io.Discard)
			if text, rerr := os.ReadFile(path); err != nil || rerr != nil || string(text) != "binary\n" {
				t.Errorf("built %q, %v, %v", path, err, rerr)
			}
		})
	}
	wg.Wait()
	if text, err := os.ReadFile(notes); err != nil || strings.Count(string(text), "built") != 2 {
		t.Errorf("the compiler ran %d times in all, want 2 (%v)", strings.Count(string(text), "built"), err)
	}
}

// A named binary that isn't there is an error, not a reason to build one or to skip.
func TestFindNamesWhatIsMissing(t *testing.T) {
	t.Setenv("KEYTURN_TEST_VAULT", filepath.Join(t.TempDir(), "none"))
	if _, err := vaulttest.Find(); err == nil || !strings.Contains(err.Error(), "KEYTURN_TEST_VAULT") {
		t.Errorf("found with error %v", err)
	}
	t.Setenv("KEYTURN_TEST_VAULT", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := vaulttest.Find(); err == nil || !strings.Contains(err.Error(), "make vault") {
		t.Errorf("found with error %v", err)
	}
}
