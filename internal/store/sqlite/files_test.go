//go:build unix

package sqlite_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// TestAdvisory_CVE_2021_38553_CVE_2020_15113: under any umask, in a new directory or one that was open to everybody, no
// file and no directory of the store gives others a right.
func TestAdvisory_CVE_2021_38553_CVE_2020_15113(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o277} {
		for _, before := range []string{"nothing", "open directory", "open files"} {
			dir := filepath.Join(t.TempDir(), "data")
			path := filepath.Join(dir, "keyturn.db")
			prepare(t, dir, path, before)
			old := syscall.Umask(umask)
			st, err := sqlite.Open(t.Context(), path, sqlite.Config{})
			if err == nil {
				err = st.Change(t.Context(), func(tx store.Tx) error { return tx.SetMeta(t.Context(), "a", "b") })
			}
			syscall.Umask(old)
			if err != nil {
				t.Fatalf("umask %03o, %s before: %v", umask, before, err)
			}
			seen := wantPrivate(t, dir)
			for _, name := range []string{"keyturn.db", "keyturn.db-wal", "keyturn.db-shm"} {
				if !seen[name] {
					t.Errorf("umask %03o, %s before: %s isn't there while the store is open", umask, before, name)
				}
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			wantPrivate(t, dir)
		}
	}
}

func prepare(t *testing.T, dir, path, before string) {
	t.Helper()
	if before == "nothing" {
		return
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if before != "open files" {
		return
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func wantPrivate(t *testing.T, dir string) (seen map[string]bool) {
	t.Helper()
	seen = map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, want %v", name, info.Mode().Perm(), want)
		}
		seen[d.Name()] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// TestForeignFilesAreRefused: what others may write to and isn't ours to tighten is not opened, and stays as it is.
func TestForeignFilesAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a directory away needs root")
	}
	const nobody = 65534
	for what, foreign := range map[string]func(dir, path string) string{
		"directory": func(dir, _ string) string { return dir },
		"file":      func(_, path string) string { return path },
	} {
		dir := filepath.Join(t.TempDir(), "data")
		path := filepath.Join(dir, "keyturn.db")
		prepare(t, dir, path, "open files")
		name := foreign(dir, path)
		if err := os.Chown(name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		_, err := sqlite.Open(t.Context(), path, sqlite.Config{})
		if fault.CodeOf(err) != api.CodeDenied || fault.NextOf(err) == "" || !strings.Contains(err.Error(), name) {
			t.Errorf("a foreign %s: %v, want denied, its name and what to do", what, err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o022 == 0 {
			t.Errorf("the foreign %s was changed: %v, %v", what, info, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := sqlite.Open(t.Context(), path, sqlite.Config{})
		if err != nil {
			t.Fatalf("a foreign but private %s was refused: %v", what, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOddFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	make := map[string]func(path string) error{
		"a symbolic link": func(p string) error { return os.Symlink(elsewhere, p) },
		"a directory":     func(p string) error { return os.Mkdir(p, 0o700) },
		"a pipe":          func(p string) error { return syscall.Mkfifo(p, 0o600) },
	}
	for what, mk := range make {
		path := filepath.Join(dir, strings.ReplaceAll(what, " ", "-"))
		if err := mk(path); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlite.Open(t.Context(), path, sqlite.Config{}); fault.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: got %v, want denied", what, err)
		}
	}
	if info, err := os.Stat(elsewhere); err != nil || info.Size() != 0 {
		t.Errorf("the link's target was written to: %v, %v", info, err)
	}
}
