package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// TestDatabaseThatIsGoneIsNotMadeAnew: a directory whose database was deleted says so, and stays as it is.
func TestDatabaseThatIsGoneIsNotMadeAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kt")
	if _, err := Init(t.Context(), dir, InitOptions{Embedded: true, Environ: []string{}}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, DatabaseFile+"*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no database to delete: %v", err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Open(t.Context(), dir, Options{Embedded: true, Environ: []string{}})
	if fault.CodeOf(err) != api.CodeNotFound || fault.FieldOf(err) != "store" {
		t.Errorf("opening without a database: %v", err)
	}
	if exists(filepath.Join(dir, DatabaseFile)) {
		t.Error("an empty database was made")
	}
}
