package soak

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/embedded"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// TestValuesThatCannotMove: a ciphertext that was cut behind its header and a message of the SDK's Envelope can't be
// re-encrypted. The run ends all the same, says so, lists them, leaves them as they are, and their version is not
// destroyed (P4).
func TestValuesThatCannotMove(t *testing.T) {
	k := New(t)
	path := filepath.Join(t.TempDir(), "app.db")
	newApplication(t, path)
	k.OK(nil, "dataset", "add", "patients", "--db", "sqlite://"+path, "--table", "patients", "--column", "ssn=phi")
	k.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	message := envelopeMessage(t, k)
	db := sqlitetest.Open(t, path)
	for q, arg := range map[string]any{`UPDATE patients SET ssn = substr(ssn, 1, ?) WHERE id = 1`: 100, `UPDATE patients SET ssn = ? WHERE id = 2`: message} {
		if _, err := db.Exec(q, arg); err != nil {
			t.Fatal(err)
		}
	}
	k.OK(nil, "key", "rotate", "phi")
	_, errs, code := k.Run(nil, "dataset", "reencrypt", "patients", "--unthrottled")
	if code == 0 || !strings.Contains(errs, "could not be done") {
		t.Fatalf("reencrypt over values that can't move: exit %d\n%s", code, errs)
	}
	var census api.Census
	k.JSON(&census, "dataset", "census", "patients")
	if v := census.Columns[0].Versions; len(v) != 2 || v[0].Version != 1 || v[0].Rows != 2 || v[1].Rows != patients-2 {
		t.Fatalf("the census says %+v", census.Columns[0])
	}
	_, errs, code = k.Run(nil, "key", "destroy", "phi", "--version", "1", "--yes")
	if code != 5 || !strings.Contains(errs, "2 values in dataset/patients") {
		t.Fatalf("destroying what they stand under: exit %d\n%s", code, errs)
	}
	var kept string
	if err := db.QueryRow(`SELECT ssn FROM patients WHERE id = 2`).Scan(&kept); err != nil || kept != message {
		t.Fatalf("the Envelope's message was touched: %v", err)
	}
}

func envelopeMessage(t *testing.T, k *Keyturn) string {
	t.Helper()
	c, err := embedded.Open(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e, err := keyturn.NewEnvelope(c, keyturn.EnvelopeConfig{Key: "phi"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	text, err := e.Seal(t.Context(), []byte("a message"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
