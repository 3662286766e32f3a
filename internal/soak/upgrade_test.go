package soak

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// releases are the folders of testdata/upgrade: what the binary of that commit left behind (make.sh says how).
var releases = []string{"6450ee9"}

// old is the data of a release, unpacked.
type old struct {
	*Keyturn
	base string
	url  string // of the PostgreSQL database; empty = SQLite
}

func unpack(t *testing.T, release, store string) *old {
	t.Helper()
	o := &old{base: t.TempDir()}
	f, err := os.Open(filepath.Join("testdata", "upgrade", release, store+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(o.base, filepath.Clean("/"+h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(path, 0o700)
		} else {
			var text []byte
			if text, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	o.Keyturn = &Keyturn{tb: t, path: Binary(t), Dir: filepath.Join(o.base, "kt"), Env: []string{"KEYTURN_DATASET_APP=sqlite://" + filepath.Join(o.base, "app.db")}}
	if store == "postgres" {
		server := pgtest.Start(t)
		o.url = server.Database(t)
		if err := server.Restore(t.Context(), o.url, string(o.read(t, "store.sql"))); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(o.Dir, "keyturn.yaml")
	text := strings.NewReplacer("@DIR@", o.base, "@STORE@", o.url).Replace(string(o.read(t, "kt/keyturn.yaml")))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *old) read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.base, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// onOld runs a test on every release's data, of both stores.
func onOld(t *testing.T, test func(t *testing.T, o *old)) {
	for _, release := range releases {
		for _, store := range []string{"sqlite", "postgres"} {
			t.Run(release+"/"+store, func(t *testing.T) { test(t, unpack(t, release, store)) })
		}
	}
}

// TestUpgrade: today's keyturn opens what a release left, brings its tables up to date, and all is there: every ciphertext
// opens or is refused as it was, keys and versions stand where they stood, the log verifies and goes on, the dataset can be
// worked on, old tokens sign in (FAULTS row 21, P4).
func TestUpgrade(t *testing.T) {
	onOld(t, func(t *testing.T, o *old) {
		for line := range strings.Lines(string(o.read(t, "sealed.tsv"))) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			out, stderr, code := o.Run([]byte(f[2]), "decrypt", f[0], "--context", "n="+f[1])
			refused := f[0] == "suspended" || f[0] == "scheduled" && f[1] == "first"
			if refused && code != 5 || !refused && (code != 0 || string(out) != f[1]) {
				t.Errorf("key %s, %s: exit %d, %q: %s", f[0], f[1], code, out, stderr)
			}
		}
		then := json.NewDecoder(bytes.NewReader(o.read(t, "keys.json")))
		for then.More() {
			var was, is api.Key
			if err := then.Decode(&was); err != nil {
				t.Fatal(err)
			}
			o.JSON(&is, "key", "show", was.Name)
			if len(was.Versions) == 0 || len(is.Versions) != len(was.Versions) || is.ID != was.ID {
				t.Fatalf("key %s had %d versions, and has %d", was.Name, len(was.Versions), len(is.Versions))
			}
			for i, v := range was.Versions {
				if is.Versions[i].State != v.State || !is.Versions[i].Created.Equal(v.Created) {
					t.Errorf("key %s: %+v became %+v", was.Name, v, is.Versions[i])
				}
			}
		}
		var then2, now api.AuditVerification
		if err := json.Unmarshal(o.read(t, "audit.json"), &then2); err != nil {
			t.Fatal(err)
		}
		o.JSON(&now, "audit", "verify")
		if !now.OK || now.Events <= then2.Events {
			t.Errorf("the log: %+v, was %+v", now, then2)
		}
		var doctor api.Doctor
		o.JSON(&doctor, "doctor")
		if !doctor.OK {
			t.Errorf("doctor: %+v", doctor.Checks)
		}
		var run api.DatasetRun
		o.JSON(&run, "dataset", "reencrypt", "patients", "--unthrottled")
		if run.State != "done" || run.Changed != 20 {
			t.Errorf("re-encrypting after the upgrade: %+v", run)
		}
		o.OK(nil, "dataset", "verify", "patients", "--unthrottled")
		o.OK(nil, "key", "rotate", "rotated")
	})
}

// TestUpgradeIsKilled: the first start after an upgrade is killed at any moment, again and again; the one that isn't killed
// finds everything (P5).
func TestUpgradeIsKilled(t *testing.T) {
	beside(t)
	rng, seed := Seed(t)
	kills := 0
	onOld(t, func(t *testing.T, o *old) {
		for range 6 {
			_, killed, _ := o.KillAfter(time.Duration(rng.Int64N(int64(120*time.Millisecond))), nil, "key", "list")
			kills += count(killed)
		}
		o.OK(nil, "key", "list")
		var v api.AuditVerification
		o.JSON(&v, "audit", "verify")
		if !v.OK {
			t.Errorf("%+v", v)
		}
	})
	Report("upgrade-kill", seed, "%d kills of the first start after an upgrade, both stores: all open afterwards", kills)
}

// TestDowngradeIsRefused: tables that a newer keyturn wrote aren't touched by an older one, which says both versions.
func TestDowngradeIsRefused(t *testing.T) {
	onOld(t, func(t *testing.T, o *old) {
		const note = `INSERT INTO migrations (version_id, is_applied) VALUES (900, true)`
		if o.url == "" {
			sqlitetest.Exec(t, filepath.Join(o.Dir, "keyturn.db"), note)
		} else if err := pgtest.Start(t).Exec(t.Context(), o.url, "SET search_path = keyturn; "+note); err != nil {
			t.Fatal(err)
		}
		_, stderr, code := o.Run(nil, "key", "list")
		if code != 1 || !strings.Contains(stderr, "version 900") || !strings.Contains(stderr, "up to") || !strings.Contains(stderr, "next:") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}
