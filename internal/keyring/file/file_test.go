package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/file"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
)

const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n" // 32 bytes

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask would take bits away
		t.Fatal(err)
	}
	return path
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one"), key, 0o600)
	if err := (file.Driver{}).Generate(t.Context(), "file://"+dir+"/two"); err != nil {
		t.Fatal(err)
	}
	open := func(url string) func(*testing.T) keyring.MasterKey {
		return func(t *testing.T) keyring.MasterKey {
			k, err := file.Driver{}.Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			if k.URL() != url || k.Provider() != "file" || k.Kind() != keyring.Holds {
				t.Errorf("%s opens as %s, %s, %s", url, k.URL(), k.Provider(), k.Kind())
			}
			return k
		}
	}
	keyringtest.Exercise(t, keyringtest.Harness{Open: open("file://" + dir + "/one"), Other: open("file://" + dir + "/two")})
}

// A path has one spelling, whether or not there is a file.
func TestCanonical(t *testing.T) {
	if got, err := (file.Driver{}).Canonical(t.Context(), "file:///none/a%2Db%20c"); err != nil || got != "file:///none/a-b%20c" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := (file.Driver{}).Canonical(t.Context(), "file://host/x"); err == nil {
		t.Errorf("no error, and %q", got)
	}
}

// 0600 or refused, whoever asks: root too, who could read any file.
func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	for mode := os.FileMode(0); mode <= 0o777; mode++ {
		path := write(t, filepath.Join(dir, "key"), key, mode)
		_, err := file.Driver{}.Open(t.Context(), "file://"+path)
		switch private := mode&0o077 == 0; {
		case private && mode&0o400 != 0 && err != nil:
			t.Errorf("%04o: %v", mode, err)
		case private && mode&0o400 == 0 && err != nil && fault.CodeOf(err) != api.CodeDenied: // root reads it all the same
			t.Errorf("%04o: %v", mode, err)
		case !private && fault.CodeOf(err) != api.CodeWrongState && fault.CodeOf(err) != api.CodeDenied:
			t.Errorf("%04o: %v", mode, err)
		case !private && mode&0o400 != 0 && !strings.Contains(fault.NextOf(err), "chmod 600"):
			t.Errorf("%04o: the next step is %q", mode, fault.NextOf(err))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("key"), key, 0o600)
	write(t, at("empty"), "", 0o600)
	write(t, at("canary"), "canary-in-a-file-that-is-no-key", 0o600)
	write(t, at("large"), key+strings.Repeat(" ", 5000), 0o600)
	write(t, at("open"), key, 0o644)
	if err := os.Mkdir(at("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "key", "link-to-open": "open", "dangling": "none"} {
		if err := os.Symlink(at(target), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for url, want := range map[string]struct {
		code  api.Code
		field string
	}{
		at("key"): {"", ""}, at("link"): {"", ""}, at("none"): {api.CodeNotFound, ""}, at("dangling"): {api.CodeNotFound, ""}, at("empty"): {api.CodeInvalid, ""},
		at("canary"): {api.CodeInvalid, ""}, at("large"): {api.CodeInvalid, ""}, at("folder"): {api.CodeInvalid, ""}, at("pipe"): {api.CodeInvalid, ""},
		"/dev/zero": {api.CodeInvalid, ""}, at("link-to-open"): {api.CodeWrongState, ""}, at("open"): {api.CodeWrongState, ""},
		"key": {api.CodeInvalid, keyring.FieldURL}, "": {api.CodeInvalid, keyring.FieldURL}, "/": {api.CodeInvalid, keyring.FieldURL},
		dir + "//key": {api.CodeInvalid, keyring.FieldURL}, dir + "/x/../key": {api.CodeInvalid, keyring.FieldURL},
		at("key") + "?mode=0644": {api.CodeInvalid, keyring.FieldURL}, at("key") + "#x": {api.CodeInvalid, keyring.FieldURL}, "localhost" + at("key"): {api.CodeInvalid, keyring.FieldURL},
		at("key") + "%00": {api.CodeUnavailable, ""}, "/%zz": {api.CodeInvalid, keyring.FieldURL},
	} {
		_, err := file.Driver{}.Open(t.Context(), "file://"+url)
		if fault.CodeOf(err) != want.code || fault.FieldOf(err) != want.field {
			t.Errorf("%q: %v (code %q, field %q), want %v", url, err, fault.CodeOf(err), fault.FieldOf(err), want)
		}
		if err != nil && strings.Contains(err.Error(), "canary-in") {
			t.Errorf("%q: the error quotes the file: %v", url, err)
		}
	}
}

// Whatever the umask, a generated key is 0600; it is whole, there is no other file beside it, and it is never replaced.
func TestGenerate(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		dir := t.TempDir()
		old := syscall.Umask(mask)
		err := file.Driver{}.Generate(t.Context(), "file://"+dir+"/master.key")
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %03o: %v", mask, err)
		}
		info, err := os.Stat(dir + "/master.key")
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("umask %03o: mode %v, %v", mask, info.Mode(), err)
		}
		before, _ := os.ReadFile(dir + "/master.key")
		if _, err := (file.Driver{}).Open(t.Context(), "file://"+dir+"/master.key"); err != nil || len(before) != 45 {
			t.Errorf("umask %03o: the generated key doesn't open: %v", mask, err)
		}
		err = file.Driver{}.Generate(t.Context(), "file://"+dir+"/master.key")
		if after, _ := os.ReadFile(dir + "/master.key"); fault.CodeOf(err) != api.CodeConflict || string(after) != string(before) {
			t.Errorf("generating over a key: %v", err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("umask %03o: left beside the key: %v", mask, entries)
		}
	}
	dir := t.TempDir()
	for url, want := range map[string]api.Code{"file://" + dir + "/no/folder": api.CodeUnavailable, "file://relative": api.CodeInvalid, "env://X": api.CodeInvalid} {
		if err := (file.Driver{}).Generate(t.Context(), url); fault.CodeOf(err) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Many at once: one makes the key, all others are told that it is there.
func TestGenerateOnce(t *testing.T) {
	url := "file://" + t.TempDir() + "/master.key"
	var wg sync.WaitGroup
	results := make([]error, 16)
	for i := range results {
		wg.Go(func() { results[i] = file.Driver{}.Generate(t.Context(), url) })
	}
	wg.Wait()
	made := 0
	for _, err := range results {
		if err == nil {
			made++
		} else if fault.CodeOf(err) != api.CodeConflict {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d keys were made", made)
	}
}
