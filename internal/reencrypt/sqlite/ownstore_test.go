package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
	store "github.com/keyturn/keyturn/internal/store/sqlite"
)

// TestOwnStore: a store of keyturn's is no dataset, under whatever name its file can be reached: work on its tables would
// seal the wrapped keys under themselves.
func TestOwnStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	st, err := store.Open(t.Context(), path, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	link := filepath.Join(t.TempDir(), "app.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	hard := filepath.Join(filepath.Dir(path), "hard.db")
	if err := os.Link(path, hard); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link, hard} {
		db, err := sqlite.Driver{}.Open(t.Context(), reencrypt.NewDSN("sqlite://"+name), reencrypt.Session{})
		if err == nil {
			db.Close()
		}
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "db" || !strings.Contains(err.Error(), "keyturn's own") {
			t.Errorf("opening %s: %v", name, err)
		}
	}
}
