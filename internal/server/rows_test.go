package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// lived is a store whose rows of every signed table have a past: dir as it is now, and the database as it was.
func lived(t *testing.T) (dir, old string) {
	t.Helper()
	dir, old = made(t), filepath.Join(t.TempDir(), "old.db")
	var incident api.Incident
	live := func(do func(admin caller)) {
		s := opened(t, dir, Options{})
		do(inside(s))
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	live(func(admin caller) {
		admin.key(t, "phi")
		admin.key(t, "still")
		admin.principal(t, "eve", "owner")
		admin.must(t, "POST", "/v1/policies/quarterly", api.SetPolicyRequest{Key: "still", Period: "90d"}, nil)
		admin.must(t, "POST", "/v1/incidents", api.OpenIncidentRequest{Type: "other", Severity: "low", Reason: "a laptop"}, &incident)
	})
	copyFile(t, filepath.Join(dir, "keyturn.db"), old)
	live(func(admin caller) {
		admin.key(t, "younger")
		admin.must(t, "POST", "/v1/keys/phi/rotate", api.RotateKeyRequest{}, nil)
		admin.must(t, "POST", "/v1/keys/phi/compromise", api.VersionStateRequest{Version: 1, Reason: "stolen"}, nil)
		admin.must(t, "POST", "/v1/principals/eve/token", nil, nil)
		admin.must(t, "POST", "/v1/principals/eve/disable", nil, nil)
		admin.must(t, "POST", "/v1/policies/quarterly", api.SetPolicyRequest{Key: "still", Period: "30d"}, nil)
		admin.must(t, "POST", "/v1/incidents/"+incident.ID+"/notes", api.IncidentNoteRequest{Text: "it was found"}, nil)
	})
	return dir, old
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tampered is a copy of the directory in which somebody who can write to the database, and kept an older copy of it, has
// run the statements; the older copy is the schema old.
func tampered(t *testing.T, dir, old string, statements ...string) string {
	t.Helper()
	base, err := os.MkdirTemp("", "kt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	to := filepath.Join(base, "d")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := closeFiles(to, nil); err != nil {
		t.Fatal(err)
	}
	// The master key's path names the directory in which the store was made.
	config := filepath.Join(to, ConfigFile)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(string(text), dir, to)), 0o600); err != nil {
		t.Fatal(err)
	}
	sqlitetest.Exec(t, filepath.Join(to, "keyturn.db"), append([]string{`ATTACH '` + old + `' AS old`, `PRAGMA foreign_keys = off`}, statements...)...)
	return to
}

// putBack are the statements that put tables back to what they were.
func putBack(tables ...string) (all []string) {
	for _, table := range tables {
		all = append(all, `DELETE FROM `+table, `INSERT INTO `+table+` SELECT * FROM old.`+table)
	}
	return all
}

// Rows that are put back to their own past, which nobody could tell from their MACs, are noticed before anything is
// answered: alone, with the sums that fitted them, and with half of them; and so are rows that are taken away or doubled.
func TestRowsThatArePutBackAreNoticed(t *testing.T) {
	dir, old := lived(t)
	phi := `(SELECT id FROM old.keys WHERE name = 'phi')`
	one := func(table, where string) []string {
		return []string{`DELETE FROM ` + table + ` WHERE ` + where, `INSERT INTO ` + table + ` SELECT * FROM old.` + table + ` WHERE ` + where}
	}
	key := append(one("key_versions", "key_id = "+phi), one("keys", `id = `+phi)...)
	attacks := map[string]struct {
		statements []string
		named      string
	}{
		"a key is younger again":      {key, "phi"},
		"a principal is back":         {one("principals", "name = 'eve'"), "eve"},
		"a token is valid again":      {one("tokens", "true"), "tokens"},
		"a policy is what it was":     {one("policies", "name = 'quarterly'"), "quarterly"},
		"an incident is open again":   {one("incidents", "true"), "incidents"},
		"a note was never made":       {putBack("incident_entries", "incidents"), "incident"},
		"a key is gone":               {[]string{`DELETE FROM key_versions WHERE key_id = ` + phi, `DELETE FROM keys WHERE name = 'phi'`}, "keys"},
		"a young key is gone":         {[]string{`DELETE FROM key_versions WHERE key_id = (SELECT id FROM keys WHERE name = 'younger')`, `DELETE FROM keys WHERE name = 'younger'`}, "keys"},
		"a principal is gone":         {[]string{`DELETE FROM tokens`, `DELETE FROM principals WHERE name = 'eve'`}, "principals"},
		"a token is gone":             {[]string{`DELETE FROM tokens WHERE principal_id = (SELECT id FROM principals WHERE name = 'eve')`}, "tokens"},
		"a policy is gone":            {[]string{`DELETE FROM policies`}, "policies"},
		"the administrator is gone":   {[]string{`DELETE FROM meta WHERE name = 'local_administrator'`}, "meta"},
		"a key has another's MAC":     {[]string{`UPDATE keys SET mac = (SELECT mac FROM keys WHERE name = 'still') WHERE name = 'phi'`}, "phi"},
		"all signed rows are back":    {putBack("keys", "key_versions", "principals", "tokens", "policies", "incidents", "incident_entries"), "keys"},
		"the sums are back":           {putBack("row_sums"), "older than audit checkpoint"},
		"the sums are gone":           {[]string{`DELETE FROM row_sums`}, "older than audit checkpoint"},
		"a sum is gone":               {[]string{`DELETE FROM row_sums WHERE bucket = 7`}, "is gone"},
		"a sum counts on":             {[]string{`UPDATE row_sums SET seq = seq + 1 WHERE bucket = 3`}, "not written by keyturn"},
		"a sum stands for another":    {[]string{`UPDATE row_sums SET sealed = (SELECT sealed FROM row_sums WHERE bucket = 1) WHERE bucket = 2`}, "not written by keyturn"},
		"a sum of then counts as now": {[]string{`UPDATE row_sums SET sealed = (SELECT o.sealed FROM old.row_sums o WHERE o.bucket = row_sums.bucket)`}, "not written by keyturn"},
	}
	for _, table := range []string{"keys", "principals", "tokens", "policies", "incidents"} {
		with := []string{table, "row_sums"}
		switch table {
		case "keys":
			with = append(with, "key_versions")
		case "incidents":
			with = append(with, "incident_entries")
		}
		attacks[table+" and all sums are back"] = struct {
			statements []string
			named      string
		}{putBack(with...), "older than audit checkpoint"}
	}
	checkpoints := putBack("audit_checkpoints")
	attacks["rows, sums and checkpoints are back"] = struct {
		statements []string
		named      string
	}{append(checkpoints, putBack("keys", "key_versions", "row_sums")...), "the store was set back or replaced"}
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			at := tampered(t, dir, old, a.statements...)
			s, err := Open(t.Context(), at, Options{Embedded: true, Environ: []string{}})
			if err == nil {
				_ = s.Close(context.Background())
				t.Fatal("the store opens")
			}
			if fault.CodeOf(err) != api.CodeIntegrity || !strings.Contains(err.Error(), a.named) || fault.NextOf(err) == "" {
				t.Errorf("it says %v; next %q; want %q", err, fault.NextOf(err), a.named)
			}
		})
	}
	// The other way round: nothing of it is an accident of copying.
	opened(t, tampered(t, dir, old), Options{})
}

// While a node runs, rows that are put back are found by the doctor and the health check; a change that would go on from a sum
// that was put back is refused; and the next checkpoint stops the node.
func TestRowsThatArePutBackUnderARunningNode(t *testing.T) {
	dir, old := lived(t)
	dir = tampered(t, dir, old)
	s := opened(t, dir, Options{Set: map[string]any{"audit.checkpointEvery": "1h"}})
	admin := inside(s)
	write := func(statements ...string) {
		t.Helper()
		sqlitetest.Exec(t, filepath.Join(dir, "keyturn.db"), append([]string{`ATTACH '` + old + `' AS old`, `PRAGMA foreign_keys = off`}, statements...)...)
	}
	write(putBack("principals")...)
	if _, answer := admin.call(t, "GET", "/v1/doctor", nil); !strings.Contains(string(answer), `"name":"rows","ok":false`) || !strings.Contains(string(answer), "of principals, one of") {
		t.Errorf("the doctor says %s", answer)
	}
	write(putBack("row_sums")...)
	status, answer := admin.call(t, "POST", "/v1/principals/eve/disable", nil)
	if status/100 == 2 || !strings.Contains(string(answer), "put back to an earlier state") {
		t.Errorf("a change on top of what was put back: %d %s", status, answer)
	}
	if _, err := s.gate.Checkpoint(t.Context()); fault.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("a checkpoint over what was put back: %v", err)
	}
	if status, answer = admin.call(t, "POST", "/v1/keys/phi/encrypt", `{"plaintext":"eA=="}`); status/100 == 2 {
		t.Errorf("after that checkpoint the node still answers: %d %s", status, answer)
	}
}

// Somebody who has looked at the rows can take them for right. It is recorded with the reason, and from then on all is
// as before.
func TestRowsThatAreAccepted(t *testing.T) {
	dir, old := lived(t)
	for name, statements := range map[string][]string{
		"put back":                 putBack("keys", "key_versions"),
		"put back with their sums": putBack("keys", "key_versions", "row_sums"),
		"without sums":             {`DELETE FROM row_sums`},
	} {
		t.Run(name, func(t *testing.T) {
			at := tampered(t, dir, old, statements...)
			s := opened(t, at, Options{AcceptRows: "the newest copy is lost"})
			_, events := inside(s).call(t, "GET", "/v1/audit/events?type=alert", nil)
			if !strings.Contains(string(events), `"action":"rows_accepted"`) || !strings.Contains(string(events), "the newest copy is lost") {
				t.Errorf("it is recorded as %s", events)
			}
			inside(s).key(t, "later")
			if err := s.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			s = opened(t, at, Options{})
			if _, answer := inside(s).call(t, "GET", "/v1/doctor", nil); !strings.Contains(string(answer), `"name":"rows","ok":true`) {
				t.Errorf("the doctor afterwards: %s", answer)
			}
		})
	}
}
