package reencrypt

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
)

// TestFormOfEarlierRecords: connections and jobs are sealed and signed together with their dataset's record, so its form must stay
// what it was in the releases that made them; what a later release adds to it is bound only where it says something.
func TestFormOfEarlierRecords(t *testing.T) {
	d := datasets.Dataset{
		ID: "0123456789abcdef0123456789abcdef", Name: "patients", Database: "postgres://db/clinic", DSN: []byte{1}, Table: "app.patients", Schema: "app",
		Relation: "patients", PK: []string{"id"}, Columns: []datasets.Column{{Name: "ssn", Key: "phi", KeyID: envelope.KeyID{1, 2}, Type: "text"}},
		Context: datasets.DefaultTemplate("", []string{"id"}), Created: time.Date(2026, 1, 15, 10, 30, 45, 0, time.UTC), Revision: 3,
	}
	const before = "de30393653fecd674732165a7a9e37518682034fe3c8a906d8214b6b58580321" // Column.Foreign
	if got, err := formOf(&d); err != nil || got != before {
		t.Errorf("the form is %s (%v), and was %s", got, err, before)
	}
	d.Columns[0].Foreign = true
	if got, err := formOf(&d); err != nil || got == before {
		t.Errorf("a column of another system's ciphertexts has the same form (%v)", err)
	}
}
