package postgres_test

import (
	"strings"
	"testing"

	store "github.com/keyturn/keyturn/internal/store/postgres"
)

// TestOwnStore: no table of a schema that holds a store of keyturn's can be worked on; the application's own tables beside
// it, in other schemas of the database, can.
func TestOwnStore(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE keks (id int PRIMARY KEY, a text)")
	st, err := store.Open(t.Context(), d.URL, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	db := open(t, d.URL)
	for _, name := range []string{"keyturn.keks", "keyturn.kek_wrappings", "keyturn.principals", "keyturn.meta"} {
		if r := describe(t, db, name).Refusal; !strings.Contains(r, "keyturn's own") {
			t.Errorf("%s: refusal %q", name, r)
		}
	}
	if r := describe(t, db, "public.keks").Refusal; r != "" {
		t.Errorf("a table of the application: %q", r)
	}
}
