package soak

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// tmpfs mounts a small file system that the test can fill; it is unmounted afterwards. Needs root (make test's machines
// and CI run as root); elsewhere the test says what is missing.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		if os.Getenv("KEYTURN_TEST_NO_MOUNT") == "1" {
			t.Skipf("KEYTURN_TEST_NO_MOUNT=1: the full-disk campaign was not run: %v", err)
		}
		t.Fatalf("mounting a tmpfs: %v (run as root, or set KEYTURN_TEST_NO_MOUNT=1 to leave this campaign out)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// fill writes until the file system is full and gives what takes the space away again.
func fill(t *testing.T, dir string) (release func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := bytes.Repeat([]byte{1}, 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCampaignDiskFull fills the disk under a store and runs every kind of command: each is refused with a clear error
// and nothing leaves; when space returns, everything goes on without repair (P2, P10, FAULTS row 7).
func TestCampaignDiskFull(t *testing.T) {
	disk := tmpfs(t, "16m")
	k := &Keyturn{tb: t, path: Binary(t), Dir: filepath.Join(disk, "kt")}
	k.OK(nil, "init")
	k.OK(nil, "key", "create", "phi")
	sealed := k.OK([]byte("before"), "encrypt", "phi", "--context", "n=1")
	app := filepath.Join(t.TempDir(), "app.db") // the application's own disk is not full
	newApplication(t, app)
	k.OK(nil, "dataset", "add", "patients", "--db", "sqlite://"+app, "--table", "patients", "--column", "ssn=phi",
		"--context", "table={table}", "--context", "patient={pk.id}")
	scenarios := [][]string{
		{"encrypt", "phi"}, {"decrypt", "phi", "--context", "n=1"}, {"key", "rotate", "phi"}, {"key", "create", "other"},
		{"principal", "create", "shop", "--role", "application"}, {"dataset", "encrypt", "patients", "--unthrottled"}, {"key", "suspend", "phi"},
	}
	refused := 0
	for _, args := range scenarios {
		release := fill(t, disk)
		stdin := []byte("value")
		if args[0] == "decrypt" {
			stdin = sealed
		}
		out, errs, code := k.Run(stdin, args...)
		release()
		if code == 0 && args[0] != "dataset" {
			t.Errorf("%s with a full disk ended well", strings.Join(args, " "))
		}
		if len(bytes.TrimSpace(out)) != 0 && code != 0 && (args[0] == "encrypt" || args[0] == "decrypt") {
			t.Errorf("%s with a full disk printed data", args[0])
		}
		if strings.Contains(errs, "goroutine ") || (code != 0 && strings.TrimSpace(errs) == "") {
			t.Errorf("%s with a full disk: %q", strings.Join(args, " "), errs)
		}
		refused += count(code != 0)
		if got := k.OK(sealed, "decrypt", "phi", "--context", "n=1"); string(got) != "before" {
			t.Fatalf("after %v and space again: %q", args, got)
		}
	}
	k.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	var census api.Census
	k.JSON(&census, "dataset", "census", "patients")
	if c := census.Columns[0]; c.Plaintext != 0 || len(c.Versions) != 1 || c.Versions[0].Rows != patients {
		t.Fatalf("after the full disk the census says %+v", c)
	}
	assertStore(t, k)
	Report("disk-full", 0, "%d commands on a full disk, %d refused, nothing leaked or half done; all went on when space returned", len(scenarios), refused)
}
