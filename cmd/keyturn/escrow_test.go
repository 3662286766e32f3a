package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
)

// way is the way to a store in process, on which commits may be tampered with.
type way struct {
	http.RoundTripper
	commit func(next func() (*http.Response, error)) (*http.Response, error)
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	next := func() (*http.Response, error) { return w.RoundTripper.RoundTrip(r) }
	if w.commit != nil && strings.HasSuffix(r.URL.Path, "/escrow/commit") {
		return w.commit(next)
	}
	return next()
}

// TestSplitThatFails: whatever goes wrong with a split, there are shares of the set that counts. Files of one that can't count
// go; those of one that counts, or may, stay.
func TestSplitThatFails(t *testing.T) {
	ctx := t.Context()
	tmp := t.TempDir() // of the whole test: what one case leaves the next begins with
	dir := filepath.Join(tmp, "kt")
	if _, err := server.Init(ctx, dir, server.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	srv, err := server.Open(ctx, dir, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close(ctx) //nolint:errcheck // of a test
	w := &way{RoundTripper: srv.InProcess()}
	s := &store{Client: keyturn.NewClient(w)}
	a := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	request := api.SplitEscrowRequest{Shares: 3, Threshold: 2, Replace: true}
	reserved := func(dir string) *shareFiles {
		t.Helper()
		files, err := reserveShares(dir, 3)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	last, err := a.splitInto(ctx, s, reserved(filepath.Join(tmp, "first")), request)
	if err != nil {
		t.Fatal(err)
	}
	full := func(f *shareFiles) { // the disk has room for one share
		device, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.open[1].Close()
		f.open[1] = device
	}
	for name, c := range map[string]struct {
		files  func(*shareFiles)
		commit func(next func() (*http.Response, error)) (*http.Response, error)
		says   string
		stay   bool // the files
		counts bool // their set
	}{
		"a full disk": {files: full, says: "nothing is changed"},
		"other bytes are read than were written": {files: func(f *shareFiles) {
			if err := os.Remove(f.names[1]); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.names[1], []byte("something else"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, says: "nothing is changed"},
		"refused": {commit: func(next func() (*http.Response, error)) (*http.Response, error) {
			if _, err := s.PrepareEscrow(ctx, request); err != nil { // somebody's newer set
				t.Error(err)
			}
			return next()
		}, says: "nothing was changed"},
		"the question is lost": {commit: func(func() (*http.Response, error)) (*http.Response, error) {
			return nil, errors.New("the network is gone")
		}, says: "it isn't known", stay: true},
		"the answer is lost": {commit: func(next func() (*http.Response, error)) (*http.Response, error) {
			if res, err := next(); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("%v, %v", res, err)
			}
			return nil, errors.New("the network is gone")
		}, says: "the new set counts", stay: true, counts: true},
	} {
		t.Run(name, func(t *testing.T) {
			files := reserved(filepath.Join(tmp, name, "shares"))
			if c.files != nil {
				c.files(files)
			}
			w.commit = c.commit
			_, err := a.splitInto(ctx, s, files, request)
			w.commit = nil
			text, _, next := keyturn.Explain(err)
			if err == nil || !strings.Contains(text, c.says) || next == "" {
				t.Errorf("%v, next %q", err, next)
			}
			if _, err := os.Stat(filepath.Dir(files.dir)); (err == nil) != c.stay {
				t.Errorf("the files stay: %v, want %v", err == nil, c.stay)
			}
			if c.counts {
				last.Files = files.names
			}
			shares, m, err := a.combine(ctx, last.Files)
			if err != nil {
				t.Fatal(err)
			}
			m.Destroy()
			if now, err := s.Escrow(ctx); err != nil || now.Set != shares[0].Set {
				t.Errorf("the store has set %s (%v), the shares that are kept are of %s", now.Set, err, shares[0].Set)
			}
		})
	}
}
