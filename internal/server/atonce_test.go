package server

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/sqlitetest"
	"github.com/keyturn/keyturn/internal/store"
)

// How many re-encryptions follow rotations at once is decided in the transaction that adds one, so it holds over all nodes. One
// that waits for its database takes nobody's place.
func TestMovesAtOnceAreCountedWhereTheyAreAdded(t *testing.T) {
	s := opened(t, made(t), Options{})
	c := inside(s)
	c.must(t, "POST", "/v1/keys", api.CreateKeyRequest{Name: "phi"}, nil)
	file := filepath.Join(t.TempDir(), "app.db")
	sqlitetest.Exec(t, file, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT)`)
	c.must(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "patients", DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi"}}, nil)
	later := time.Now().Add(time.Hour)
	add := func(id string, attempts int) {
		t.Helper()
		err := s.store.Change(t.Context(), func(tx store.Tx) error {
			_, _, err := tx.InsertJob(t.Context(), jobs.Job{
				ID: id, Kind: string(reencrypt.KindReencrypt), Subject: "dataset/other" + id, UniqueKey: "dataset/other" + id, Args: []byte("{}"), Actor: "system",
				State: jobs.Queued, Control: jobs.Run, Created: later, NextAttempt: later, Attempts: attempts,
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(atOnce int) error {
		return s.datasets.Move(t.Context(), "patients", reencrypt.Queue{AtOnce: atOnce}, api.DatasetRunRequest{})
	}
	add("000000000000000000000001", 0)
	add("000000000000000000000002", 3)
	if err := move(1); !errors.Is(err, reencrypt.ErrEnough) {
		t.Errorf("a second one at once: %v", err)
	}
	var list api.JobList
	c.must(t, "GET", "/v1/jobs", nil, &list)
	if len(list.Jobs) != 2 {
		t.Errorf("%+v", list.Jobs)
	}
	if err := move(2); err != nil {
		t.Errorf("one of two: %v", err)
	}
}
