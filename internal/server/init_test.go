package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring/file"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

func initIn(t *testing.T, dir string, opts InitOptions) (Initialised, error) {
	t.Helper()
	opts.Embedded = true
	if opts.Environ == nil {
		opts.Environ = []string{}
	}
	return Init(t.Context(), dir, opts)
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	done, err := initIn(t, dir, InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if done.Dir != dir || done.Principal != Administrator || done.MasterKey != "file://"+filepath.Join(dir, MasterKeyFile) || len(done.StoreID) != 32 {
		t.Errorf("%+v", done)
	}
	before := tree(t, dir)
	if _, err := initIn(t, dir, InitOptions{}); fault.CodeOf(err) != api.CodeConflict {
		t.Errorf("a second init: %v", err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("a refused init changed the directory:\n%s\n%s", before, after)
	}
	var check api.AuditVerification
	inside(opened(t, dir, Options{})).must(t, "GET", "/v1/audit/verify", nil, &check)
	if !check.OK || check.Events == 0 {
		t.Errorf("%+v", check)
	}
}

// tree lists names, modes and sizes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		b.WriteString(path + " " + info.Mode().String() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Whatever step a kill interrupted, the same init finishes, and what the interrupted one made is kept.
func TestInitTakesUpWhatAKillLeft(t *testing.T) {
	whole := made(t)
	s := opened(t, whole, Options{})
	inside(s).key(t, "phi")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := s.store.ID()
	for name, prepare := range map[string]func(dir string) error{
		"nothing yet":        func(string) error { return nil },
		"an empty directory": func(dir string) error { return os.MkdirAll(dir, 0o700) },
		"a master key": func(dir string) error {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			return file.Driver{}.Generate(t.Context(), "file://"+filepath.Join(dir, MasterKeyFile))
		},
		"an empty database": func(dir string) error {
			st, err := sqlite.Open(t.Context(), filepath.Join(dir, DatabaseFile), sqlite.Config{})
			if err != nil {
				return err
			}
			return st.Close()
		},
		"a temporary file": func(dir string) error {
			return os.WriteFile(filepath.Join(mkdir(dir), "."+ConfigFile+".123"), []byte("x"), 0o600)
		},
		"all but the configuration": func(dir string) error {
			for _, f := range []string{MasterKeyFile, DatabaseFile, CheckpointFile} {
				b, err := os.ReadFile(filepath.Join(whole, f))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(mkdir(dir), f), b, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := prepare(dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		key, _ := os.ReadFile(filepath.Join(dir, MasterKeyFile))
		done, err := initIn(t, dir, InitOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if now, _ := os.ReadFile(filepath.Join(dir, MasterKeyFile)); len(key) > 0 && string(now) != string(key) {
			t.Errorf("%s: the master key was replaced", name)
		}
		c := inside(opened(t, dir, Options{}))
		if name == "all but the configuration" {
			if done.StoreID != id {
				t.Errorf("%s: another store", name)
			}
			c.must(t, "GET", "/v1/keys/phi", nil, nil)
		}
		var doctor api.Doctor
		if c.must(t, "GET", "/v1/doctor", nil, &doctor); !doctor.OK {
			t.Errorf("%s: %+v", name, doctor)
		}
	}
}

func mkdir(dir string) string {
	_ = os.MkdirAll(dir, 0o700)
	return dir
}

func TestInitRefuses(t *testing.T) {
	inTheWay := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir  string
		opts InitOptions
		code api.Code
	}{
		"a file in the way":       {inTheWay, InitOptions{}, api.CodeUnavailable},
		"an unknown store":        {"", InitOptions{Store: "mysql://h/d"}, api.CodeInvalid},
		"an unknown provider":     {"", InitOptions{MasterKeys: []string{"kms://x"}}, api.CodeInvalid},
		"a variable not set":      {"", InitOptions{MasterKeys: []string{"env://KEYTURN_TEST_NOT_SET"}}, api.CodeNotFound},
		"a master key not there":  {"", InitOptions{MasterKeys: []string{"file:///nonexistent/key"}}, api.CodeNotFound},
		"an unknown variable set": {"", InitOptions{Environ: []string{"KEYTURN_FOO=1"}}, api.CodeInvalid},
	} {
		dir := c.dir
		if dir == "" {
			dir = filepath.Join(t.TempDir(), "d")
		}
		if _, err := initIn(t, dir, c.opts); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v (%s)", name, err, fault.CodeOf(err))
		}
		if exists(filepath.Join(dir, ConfigFile)) {
			t.Errorf("%s: there is a configuration", name)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	open := func(dir string, opts Options) error {
		opts.Embedded, opts.Environ = true, []string{}
		s, err := Open(t.Context(), dir, opts)
		if err == nil {
			_ = s.Close(context.Background())
		}
		return err
	}
	if err := open(filepath.Join(t.TempDir(), "none"), Options{}); fault.CodeOf(err) != api.CodeNotFound || !strings.Contains(fault.NextOf(err), "init") {
		t.Errorf("no directory: %v", err)
	}
	if err := open(t.TempDir(), Options{}); fault.CodeOf(err) != api.CodeNotFound {
		t.Errorf("no store: %v", err)
	}
	dir := made(t)
	key := filepath.Join(dir, MasterKeyFile)
	right, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	// The wrong master key: said plainly, and nothing changes.
	if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString([]byte("another thirty-two bytes of key!"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(dir, Options{}); fault.CodeOf(err) != api.CodeIntegrity || strings.Contains(err.Error(), "YW5vdGhl") {
		t.Errorf("another master key: %v", err)
	}
	if err := os.WriteFile(key, right, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(dir, Options{Set: map[string]any{"listne": "x"}}); fault.CodeOf(err) != api.CodeInvalid {
		t.Errorf("an unknown flag: %v", err)
	}
	if err := open(dir, Options{}); err != nil {
		t.Errorf("with the right one again: %v", err)
	}
}

// Row 10: whatever the umask and the modes that were found, nothing in the directory can be read by others afterwards.
func TestAdvisory_CVE_2021_38553_server(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := initIn(t, dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	closed := func(when string) {
		t.Helper()
		for _, line := range strings.Split(strings.TrimSpace(tree(t, dir)), "\n") {
			mode := strings.Fields(line)[1]
			if others := mode[len(mode)-6:]; others != "------" {
				t.Errorf("%s: %s", when, line)
			}
		}
	}
	closed("after init")
	v := served(t, dir, Options{})
	inside(v.Server).key(t, "phi")
	closed("while serving")
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"", DatabaseFile, CheckpointFile, AuditKeyFile, ConfigFile, LockFile, TLSDir} {
		if err := os.Chmod(filepath.Join(dir, f), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	opened(t, dir, Options{})
	closed("after opening what was left open")
}

// A master key that others could read may have been read: it is refused, and not quietly closed and used.
func TestMasterKeyThatWasOpenIsRefused(t *testing.T) {
	dir := made(t)
	key := filepath.Join(dir, MasterKeyFile)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), dir, Options{Embedded: true, Environ: []string{}})
		if fault.CodeOf(err) != api.CodeWrongState || fault.NextOf(err) == "" {
			t.Errorf("%o: %v", mode, err)
		}
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%o: the mode was changed (%v)", mode, err)
		}
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	opened(t, dir, Options{})
}

func TestTombstoneFile(t *testing.T) {
	list := &tombstoneFile{path: filepath.Join(t.TempDir(), TombstoneFile)}
	if got, err := list.List(t.Context()); len(got) != 0 || err != nil {
		t.Fatalf("%v %v", got, err)
	}
	var entry = tombstone("phi", 1)
	if err := list.Append(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(tombstone("phi", 2))
	if err != nil {
		t.Fatal(err)
	}
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(list.path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	add(string(b[:len(b)/2])) // a kill
	if got, err := list.List(t.Context()); len(got) != 1 || err != nil {
		t.Errorf("with half a line: %v %v", got, err)
	}
	if err := list.Append(t.Context(), tombstone("phi", 3)); err != nil {
		t.Fatal(err)
	}
	got, err := list.List(t.Context())
	if err != nil || len(got) != 2 || got[0] != entry || got[1].Version != 3 {
		t.Errorf("after half a line: %+v %v", got, err)
	}
	add("nonsense\n")
	if _, err := list.List(t.Context()); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("an edited list: %v", err)
	}
}
