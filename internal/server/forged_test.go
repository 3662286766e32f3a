package server

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/store"
)

// Whoever can write to the database and has no master key gets in nowhere: not with a role that he wrote, not with a
// token that he wrote, not as the administrator whom he named, not under a key whose name he swapped. Each attempt is
// refused as tampering and recorded, and the doctor isn't content.
func TestDatabaseWriterTakesNothingOver(t *testing.T) {
	dir := made(t)
	s := opened(t, dir, Options{})
	admin := inside(s)
	admin.key(t, "phi")
	admin.key(t, "open")
	eve := inside(s)
	eve.token = admin.principal(t, "eve", "auditor")
	own := inside(s)
	text, forged, err := access.NewToken(bytes.NewReader(bytes.Repeat([]byte{7}, 40)))
	if err != nil {
		t.Fatal(err)
	}
	own.token = text
	if status, answer := admin.call(t, "GET", "/v1/doctor", nil); status != 200 || !bytes.Contains(answer, []byte(`"name":"keys","ok":true`)) {
		t.Fatalf("the doctor before: %d %s", status, answer)
	}
	err = s.store.Change(t.Context(), func(tx store.Tx) error {
		for _, query := range []string{
			`UPDATE principals SET role = 'owner', scope = '["*"]' WHERE name = 'eve'`,
			`UPDATE keys SET name = 'x' WHERE name = 'phi'`, `UPDATE keys SET name = 'phi' WHERE name = 'open'`,
			`UPDATE keys SET name = 'open' WHERE name = 'x'`,
		} {
			if _, err := tx.SQL().Exec(query); err != nil {
				return err
			}
		}
		_, err := tx.SQL().Exec(`INSERT INTO tokens (id, principal_id, hash, created, expires, revoked, mac)
			SELECT $1, id, $2, 1, 0, 0, mac FROM principals WHERE name <> 'eve'`, forged.ID, forged.Hash[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ring.DropAll() // what five seconds do by themselves
	for name, attempt := range map[string]func() (int, []byte){
		"a role of his own":  func() (int, []byte) { return eve.call(t, "GET", "/v1/whoami", nil) },
		"a token of his own": func() (int, []byte) { return own.call(t, "GET", "/v1/whoami", nil) },
		"a swapped key":      func() (int, []byte) { return admin.call(t, "POST", "/v1/keys/phi/encrypt", `{"plaintext":"eA=="}`) },
	} {
		if status, answer := attempt(); status/100 == 2 || !bytes.Contains(answer, []byte(`"integrity"`)) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if _, events := admin.call(t, "GET", "/v1/audit/events?type=auth_failure", nil); bytes.Count(events, []byte(`"code":"integrity"`)) != 2 {
		t.Errorf("the refused sign-ins are recorded as %s", events)
	}
	_, answer := admin.call(t, "GET", "/v1/doctor", nil)
	for _, want := range []string{`"name":"keys","ok":false`, `"name":"principals","ok":false`, "key open", "key phi", "principal eve", "token " + forged.ID} {
		if !bytes.Contains(answer, []byte(want)) {
			t.Errorf("the doctor doesn't say %s: %s", want, answer)
		}
	}

	// Naming eve the administrator shuts out whoever owns the data directory, and lets nobody in.
	err = s.store.Change(t.Context(), func(tx store.Tx) error {
		_, err := tx.SQL().Exec(`UPDATE meta SET value = (SELECT id FROM principals WHERE name = 'eve') WHERE name = 'local_administrator'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.signIns.Drop()
	if status, answer := admin.call(t, "GET", "/v1/whoami", nil); status/100 == 2 || !bytes.Contains(answer, []byte("local_administrator")) {
		t.Errorf("as another administrator: %d %s", status, answer)
	}
}
