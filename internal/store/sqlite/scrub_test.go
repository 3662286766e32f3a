package sqlite_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// TestAdvisory_CVE_2026_42186_CVE_2020_7220 is the store's part of that row: after a destruction the wrapped material is
// in none of the store's files, also when a reader held the log while it happened; and no row is left that belongs to
// nothing.
func TestAdvisory_CVE_2026_42186_CVE_2020_7220(t *testing.T) {
	dir := t.TempDir()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "keyturn.db"), sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first, second := bytes.Repeat([]byte("FIRST-MATERIAL"), 20), bytes.Repeat([]byte("SECOND-MATERIAL"), 20)
	k, err := keys.NewKey(envelope.NewKeyID(), keys.Spec{Name: "phi"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]byte{first, second, []byte("third")} {
		if _, err := k.Rotate(now, "a", "r", 0); err != nil {
			t.Fatal(err)
		}
		k.Versions[len(k.Versions)-1].Wrapped = m
	}
	change(t, st, func(tx store.Tx) error { return tx.CreateKey(t.Context(), k) })
	if !inFiles(t, dir, first) || !inFiles(t, dir, second) {
		t.Fatal("the search doesn't find what must be there")
	}
	k.Revision = 1
	destroy(t, st, &k, 1, now)
	if inFiles(t, dir, first) {
		t.Error("destroyed material is still in the store's files")
	}

	err = st.View(t.Context(), func(tx store.Tx) error {
		if _, err := tx.KeyByID(t.Context(), k.ID); err != nil {
			return err
		}
		destroy(t, st, &k, 2, now) // this View keeps the log from being cut
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !inFiles(t, dir, second) {
		t.Log("the log was cut although it was being read")
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if inFiles(t, dir, second) {
		t.Error("destroyed material is still in the files of the closed store")
	}
	orphans(t, filepath.Join(dir, "keyturn.db"))
}

func change(t *testing.T, st store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := st.Change(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// destroy takes version n through its last states.
func destroy(t *testing.T, st store.Store, k *keys.Key, n uint32, now time.Time) {
	t.Helper()
	if _, err := k.Move(n, keys.DestroyScheduled, now, "a", "r", 7); err != nil {
		t.Fatal(err)
	}
	change(t, st, func(tx store.Tx) error { return tx.UpdateKey(t.Context(), *k) })
	k.Revision++
	if _, err := k.Destroy(n, now.AddDate(0, 0, 8), "a", "r"); err != nil {
		t.Fatal(err)
	}
	change(t, st, func(tx store.Tx) error { return tx.UpdateKey(t.Context(), *k) })
	k.Revision++
}

// inFiles says whether any file of the directory holds text.
func inFiles(t *testing.T, dir string, text []byte) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, text[:14]) {
			return true
		}
	}
	return false
}

// orphans wants a sound file without a row that points nowhere.
func orphans(t *testing.T, path string) {
	t.Helper()
	db := raw(t, path)
	var sound string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("integrity_check: %s, %v", sound, err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM pragma_foreign_key_check`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows belong to nothing (%v)", n, err)
	}
}
