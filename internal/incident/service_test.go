package incident_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the application's own driver
	_ "modernc.org/sqlite"             // likewise

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// clinic is a store with keys phi and pii, and an application's table whose values stand under phi.
type clinic struct {
	*testing.T
	*keyturn.Client
	srv *server.Server
	dir string // of the store
	app connectortest.Database
}

// open makes a store with keys phi and pii.
func open(t *testing.T) *clinic {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	c := &clinic{T: t, dir: dir}
	if _, err := server.Init(ctx, dir, server.InitOptions{Embedded: true}); err != nil {
		t.Fatal(err)
	}
	srv, err := server.Open(ctx, dir, server.Options{Embedded: true, Command: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(ctx); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	c.srv, c.Client = srv, keyturn.NewClient(srv.InProcess())
	for _, key := range []string{"phi", "pii"} {
		c.must(second(c.CreateKey(t.Context(), api.CreateKeyRequest{Name: key, Purpose: key})))
	}
	return c
}

const rows = 99

// onBoth runs a test with an application on SQLite and one on PostgreSQL.
func onBoth(t *testing.T, test func(*clinic)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "clinic.db")
		test(newClinic(t, connectortest.Database{URL: (&url.URL{Scheme: "sqlite", Path: path}).String(), DB: sqlitetest.Open(t, path)}))
	})
	t.Run("postgres", func(t *testing.T) {
		address := pgtest.Start(t).Database(t)
		db, err := sql.Open("pgx", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		test(newClinic(t, connectortest.Database{URL: address, DB: db}))
	})
}

// newClinic encrypts the table under version 2 of phi; version 1 protects nothing there.
func newClinic(t *testing.T, app connectortest.Database) *clinic {
	t.Helper()
	c := open(t)
	c.app = app
	app.Exec(t, "CREATE TABLE patients (id bigint PRIMARY KEY, ssn text)",
		"INSERT INTO patients SELECT i, '900-00-' || (1000 + i) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) SELECT i FROM n) AS s")
	c.must(second(c.RotateKey(t.Context(), "phi", api.RotateKeyRequest{})))
	c.must(second(c.AddDataset(t.Context(), api.AddDatasetRequest{Name: "patients", DB: app.URL, Table: "patients", Columns: map[string]string{"ssn": "phi"}})))
	run, err := c.EncryptDataset(t.Context(), "patients", api.DatasetRunRequest{})
	c.must(err)
	if j := c.finish(run.Job); j.State != "done" {
		t.Fatalf("encrypting ended %s: %s", j.State, j.Error)
	}
	return c
}

func second[T any](_ T, err error) error { return err }

func (c *clinic) must(err error) {
	c.Helper()
	if err != nil {
		_, field, _ := keyturn.Explain(err)
		c.Fatalf("%v (%v, field %q)", err, keyturn.CodeOf(err), field)
	}
}

// wants checks the code and the field of an error.
func (c *clinic) wants(err error, code api.Code, field string) {
	c.Helper()
	if _, got, _ := keyturn.Explain(err); err == nil || keyturn.CodeOf(err) != code || got != field {
		c.Errorf("error %v (%s, field %q), want %s %q", err, keyturn.CodeOf(err), got, code, field)
	}
}

// finish waits for a job.
func (c *clinic) finish(job string) (last api.Job) {
	c.Helper()
	for j, err := range c.WatchJob(c.Context(), job) {
		c.must(err)
		last = j
	}
	return last
}

// emergency runs an emergency to the end of all of its jobs.
func (c *clinic) emergency(in api.EmergencyRequest) (api.Emergency, api.IncidentDetail) {
	c.Helper()
	e, err := c.Emergency(c.Context(), in)
	c.must(err)
	if j := c.finish(e.Incident.Job); j.State != "done" {
		c.Fatalf("the emergency ended %s: %s", j.State, j.Error)
	}
	d := c.show(e.Incident.ID)
	for _, set := range d.Datasets {
		if set.Job != "" {
			if j := c.finish(set.Job); j.State != "done" {
				c.Fatalf("re-encrypting %s ended %s: %s", set.Dataset, j.State, j.Error)
			}
		}
	}
	return e, c.show(e.Incident.ID)
}

func (c *clinic) show(id string) api.IncidentDetail {
	c.Helper()
	d, err := c.Incident(c.Context(), id)
	c.must(err)
	return d
}

// states are the states of a key's versions, in order.
func (c *clinic) states(key string) string {
	c.Helper()
	k, err := c.Key(c.Context(), key)
	c.must(err)
	var out []string
	for _, v := range k.Versions {
		out = append(out, v.State)
	}
	return strings.Join(out, " ")
}

// as is a client of somebody with a role.
func (c *clinic) as(role string, scope ...string) *keyturn.Client {
	c.Helper()
	if len(scope) == 0 {
		scope = []string{"*"}
	}
	p, err := c.CreatePrincipal(c.Context(), api.CreatePrincipalRequest{Name: fmt.Sprintf("%s-%d", role, len(c.principals())), Role: role, Scope: scope})
	c.must(err)
	return keyturn.NewClient(c.srv.InProcess(), keyturn.WithToken(p.Token))
}

func (c *clinic) principals() []api.Principal {
	list, err := c.Principals(c.Context())
	c.must(err)
	return list.Principals
}

// events are the audit log's lines that a filter selects.
func (c *clinic) events(f keyturn.AuditQuery) (out []string) {
	c.Helper()
	for line, err := range c.AuditEvents(c.Context(), f) {
		c.must(err)
		out = append(out, string(line))
	}
	return out
}

// TestLifeOfAnEmergency is the whole of it: rotate, mark, move, look, report, close.
func TestLifeOfAnEmergency(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		e, d := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "laptop stolen", Details: "serial 17\nfrom the ward", Type: "device-loss", Severity: "critical",
			Compromised: []api.IncidentVersion{{Key: "phi", Version: 2}}})
		for _, line := range c.events(keyturn.AuditQuery{Type: "key_rotation", Resource: "key/phi"}) {
			if strings.Contains(line, e.Incident.ID) && strings.Contains(line, `"action":"rotated"`) && !strings.Contains(line, `"ordered_by":"owner"`) {
				c.Errorf("the rotation doesn't say who ordered it: %s", line)
			}
		}
		if got := c.states("phi"); got != "deactivated compromised active" {
			c.Errorf("versions of phi: %s", got)
		}
		if got := c.states("pii"); got != "active" {
			c.Errorf("versions of pii, which isn't concerned: %s", got)
		}
		if d.Rotated != 1 || d.JobState != "done" || d.Remaining == nil || *d.Remaining != 0 || !d.Incident.Emergency || d.Incident.OpenedBy == "" {
			c.Errorf("the incident: %+v", d)
		}
		if k := d.KeyProgress; len(k) != 1 || k[0].From != 2 || k[0].Active != 3 || !k[0].Rotated || k[0].Versions[0] != (api.IncidentVersionState{Version: 2, State: "compromised"}) {
			c.Errorf("progress: %+v", k)
		}
		if s := d.Datasets; len(s) != 1 || s[0].Dataset != "patients" || *s[0].Held[0].Rows != rows || s[0].JobState != "done" || *s[0].Remaining != 0 {
			c.Errorf("datasets: %+v", s)
		}
		if len(d.Uses) != 1 || len(d.Uses[0].Could) == 0 || d.Uses[0].Until.IsZero() || len(d.Withheld) != 0 {
			c.Errorf("uses: %+v, withheld %v", d.Uses, d.Withheld)
		}
		job, err := c.Job(ctx, e.Incident.Job)
		c.must(err)
		if job.Kind != "emergency-rotate" || job.Done != 1 || job.Total != 1 || job.Subject != "incident/"+e.Incident.ID {
			c.Errorf("its job: %+v", job)
		}

		c.must(second(c.NoteIncident(ctx, e.Incident.ID, "laptop wiped remotely, 已擦除\nsee ticket 4711")))
		report, err := c.IncidentReport(ctx, e.Incident.ID)
		c.must(err)
		c.evidence(report)
		closed, err := c.CloseIncident(ctx, e.Incident.ID, "rows moved, laptop wiped")
		c.must(err)
		if closed.State != "closed" || closed.Closed == nil || closed.ClosedBy == "" || closed.ClosedReason != "rows moved, laptop wiped" {
			c.Errorf("closed: %+v", closed)
		}
		c.wants(second(c.CloseIncident(ctx, e.Incident.ID, "again")), api.CodeWrongState, "")
		c.wants(second(c.NoteIncident(ctx, e.Incident.ID, "too late")), api.CodeWrongState, "")
		after := c.show(e.Incident.ID)
		texts := ""
		for n, entry := range after.Timeline {
			if entry.Number != int64(n)+1 || entry.At.IsZero() || entry.By == "" {
				c.Errorf("entry %d: %+v", n, entry)
			}
			texts += entry.Text + "\n"
		}
		for _, want := range []string{"opened as device-loss, severity critical", "alert raised", "1 of 1 keys have a new version; marked compromised: phi:2",
			"dataset patients holds 99 values under phi version 2; re-encryption is queued as job ", "phi version 2: ", "已擦除", "closed: rows moved"} {
			if !strings.Contains(texts, want) {
				c.Errorf("the timeline lacks %q:\n%s", want, texts)
			}
		}
		list, err := c.Incidents(ctx, keyturn.IncidentFilter{State: "closed"})
		if err != nil || len(list.Incidents) != 1 || list.Incidents[0].ID != e.Incident.ID {
			c.Errorf("%+v, %v", list, err)
		}
		list, err = c.Incidents(ctx, keyturn.IncidentFilter{State: "open"})
		if err != nil || len(list.Incidents) != 0 {
			c.Errorf("%+v, %v", list, err)
		}
		status, err := c.Status(ctx)
		if err != nil || status.Incidents["closed"] != 1 || status.Incidents["open"] != 0 {
			c.Errorf("%+v, %v", status.Incidents, err)
		}
		if doctor, err := c.Doctor(ctx); err != nil || !doctor.OK {
			c.Errorf("doctor: %+v, %v", doctor, err)
		}
	})
}

// evidence checks a report against an export of the log, as somebody would who believes nothing: every action stands at its
// place, word for word, and the checkpoint covers it.
func (c *clinic) evidence(r api.IncidentReport) {
	c.Helper()
	out, in := io.Pipe()
	go func() {
		_, err := c.ExportAudit(c.Context(), in, keyturn.AuditQuery{})
		in.CloseWithError(err)
	}()
	export, err := io.ReadAll(out)
	c.must(err)
	places := map[string]string{}
	for line := range strings.SplitSeq(string(export), "\n") {
		var e struct {
			Shard *int
			Index uint64
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Shard != nil {
			places[fmt.Sprint(*e.Shard, e.Index)] = line
		}
	}
	var verbs []string
	for _, a := range r.Actions {
		if a.Event == "" || places[fmt.Sprint(a.Shard, a.Index)] != a.Event {
			c.Errorf("%s at shard %d index %d isn't what the export has there", a.Action, a.Shard, a.Index)
		}
		if a.Index >= r.Shards[a.Shard].Size {
			c.Errorf("%s at index %d isn't covered by a checkpoint of %d events", a.Action, a.Index, r.Shards[a.Shard].Size)
		}
		verbs = append(verbs, a.EventType+" "+a.Action)
	}
	for _, want := range []string{"incident opened", "alert incident_opened", "key_rotation rotated", "incident keys_rotated", "reencryption dataset-reencrypt_requested", "reencryption dataset-reencrypt_done",
		"incident uses_recorded", "incident noted"} {
		if !slices.Contains(verbs, want) {
			c.Errorf("the report lacks %q: %q", want, verbs)
		}
	}
	if r.Checkpoint == "" || r.PublicKey == "" || r.StoreID == "" || r.GeneratedBy == "" {
		c.Errorf("the report lacks its proof: %+v", r)
	}
}

// Everything that is wrong is said at once, before anything is changed.
func TestEmergencyIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	c := open(t)
	ctx := c.Context()
	for _, name := range []string{"suspended", "ending", "gone"} {
		c.must(second(c.CreateKey(ctx, api.CreateKeyRequest{Name: name})))
	}
	c.must(second(c.SuspendKey(ctx, "suspended", api.VersionStateRequest{})))
	c.must(second(c.DisableKey(ctx, "ending", api.VersionStateRequest{})))
	c.must(second(c.DestroyKey(ctx, "ending", api.VersionStateRequest{Version: 1})))
	c.must(second(c.RotateKey(ctx, "gone", api.RotateKeyRequest{})))
	c.must(second(c.DestroyKey(ctx, "gone", api.VersionStateRequest{Version: 1})))
	rotated := func() (n int) { // self-checks, which are of the same type, come when they come
		for _, e := range c.events(keyturn.AuditQuery{Type: "key_rotation"}) {
			if strings.Contains(e, `"action":"rotated"`) {
				n++
			}
		}
		return n
	}
	before := rotated()
	one := func(key string, version uint32) []api.IncidentVersion {
		return []api.IncidentVersion{{Key: key, Version: version}}
	}
	for name, q := range map[string]struct {
		in    api.EmergencyRequest
		code  api.Code
		field string
		says  string
	}{
		"no reason":               {api.EmergencyRequest{Keys: []string{"phi"}}, api.CodeInvalid, "reason", "missing"},
		"a blank reason":          {api.EmergencyRequest{Keys: []string{"phi"}, Reason: " \u00a0 "}, api.CodeInvalid, "reason", "missing"},
		"two lines":               {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "a\nb"}, api.CodeInvalid, "reason", "line"},
		"a long reason":           {api.EmergencyRequest{Keys: []string{"phi"}, Reason: strings.Repeat("x", 1025)}, api.CodeTooLarge, "reason", "1024"},
		"long details":            {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Details: strings.Repeat("x", 16<<10+1)}, api.CodeTooLarge, "details", "16384"},
		"a bell":                  {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x\ay"}, api.CodeInvalid, "reason", "control"},
		"turned around":           {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Details: "a\u202eb"}, api.CodeInvalid, "details", "direction"},
		"a token in the reason":   {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "leaked kt_0123456789abcdef_x"}, api.CodeInvalid, "reason", "secret"},
		"a PEM in the details":    {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Details: "-----BEGIN PRIVATE KEY-----"}, api.CodeInvalid, "details", "secret"},
		"an unknown type":         {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Type: "fire"}, api.CodeInvalid, "type", "type"},
		"an unknown severity":     {api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x", Severity: "HIGH"}, api.CodeInvalid, "severity", "severity"},
		"no key":                  {api.EmergencyRequest{Reason: "x"}, api.CodeInvalid, "keys", "exactly one"},
		"all and one":             {api.EmergencyRequest{Reason: "x", All: true, Keys: []string{"phi"}}, api.CodeInvalid, "keys", "exactly one"},
		"all of a purpose":        {api.EmergencyRequest{Reason: "x", All: true, Purpose: "phi"}, api.CodeInvalid, "keys", "exactly one"},
		"a bad purpose":           {api.EmergencyRequest{Reason: "x", Purpose: "P"}, api.CodeInvalid, "purpose", "purpose"},
		"nobody's purpose":        {api.EmergencyRequest{Reason: "x", Purpose: "nobodys"}, api.CodeNotFound, "keys", "no key"},
		"an unknown key":          {api.EmergencyRequest{Reason: "x", Keys: []string{"phi", "nokey"}}, api.CodeNotFound, "keys", "number 2 of keys"},
		"no name":                 {api.EmergencyRequest{Reason: "x", Keys: []string{"../phi"}}, api.CodeInvalid, "keys", "number 1"},
		"suspended":               {api.EmergencyRequest{Reason: "x", Keys: []string{"suspended"}}, api.CodeWrongState, "keys", "key suspended is suspended"},
		"nothing left":            {api.EmergencyRequest{Reason: "x", Keys: []string{"ending"}}, api.CodeWrongState, "keys", "every version of key ending is destroyed or will be"},
		"an unknown version":      {api.EmergencyRequest{Reason: "x", Keys: []string{"phi"}, Compromised: one("phi", 9)}, api.CodeNotFound, "compromised", "no version 9"},
		"version 0":               {api.EmergencyRequest{Reason: "x", Keys: []string{"phi"}, Compromised: one("phi", 0)}, api.CodeNotFound, "compromised", "no version 0"},
		"another key's version":   {api.EmergencyRequest{Reason: "x", Keys: []string{"phi"}, Compromised: one("pii", 1)}, api.CodeInvalid, "compromised", "isn't among"},
		"no such key's version":   {api.EmergencyRequest{Reason: "x", Keys: []string{"phi"}, Compromised: one("nokey", 1)}, api.CodeNotFound, "compromised", "number 1 of compromised"},
		"to be destroyed":         {api.EmergencyRequest{Reason: "x", Keys: []string{"gone"}, Compromised: one("gone", 1)}, api.CodeWrongState, "compromised", "scheduled"},
		"a skipped key's version": {api.EmergencyRequest{Reason: "x", All: true, Compromised: one("suspended", 1)}, api.CodeWrongState, "keys", "suspended"},
		"three things": {api.EmergencyRequest{Reason: "x", Keys: []string{"suspended", "nokey", "phi"}, Compromised: one("phi", 7)}, api.CodeWrongState, "keys",
			"key suspended is suspended; number 2 of keys names a key that doesn't exist; key phi has no version 7"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Emergency(ctx, q.in)
			c := &clinic{T: t, Client: c.Client, srv: c.srv}
			c.wants(err, q.code, q.field)
			if err == nil || !strings.Contains(err.Error(), q.says) || strings.Contains(err.Error(), "kt_0123") {
				t.Errorf("it says %v, want %q", err, q.says)
			}
			if _, _, next := keyturn.Explain(err); next == "" {
				t.Errorf("no next step: %v", err)
			}
		})
	}
	if got := rotated(); got != before || c.states("phi") != "active" {
		t.Errorf("%d rotations before, %d after; phi is %s", before, got, c.states("phi"))
	}
	if list, err := c.Incidents(ctx, keyturn.IncidentFilter{}); err != nil || len(list.Incidents) != 0 {
		t.Errorf("incidents: %+v, %v", list, err)
	}
	for _, line := range c.events(keyturn.AuditQuery{}) {
		if strings.Contains(line, "kt_0123456789abcdef") {
			t.Errorf("the log holds the token: %s", line)
		}
	}
}

// TestEmergencyOfADisabledKey: who disables the version first, as anybody would, gets his emergency all the same.
func TestEmergencyOfADisabledKey(t *testing.T) {
	onBoth(t, func(c *clinic) {
		ctx := c.Context()
		c.must(second(c.DisableKey(ctx, "phi", api.VersionStateRequest{})))
		e, d := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "disabled first"})
		if got := c.states("phi"); got != "deactivated compromised active" || d.Rotated != 1 || d.Remaining == nil || *d.Remaining != 0 {
			c.Fatalf("phi is %s; %+v", got, d)
		}
		c.must(second(c.CloseIncident(ctx, e.Incident.ID, "done")))

		c.must(second(c.DisableKey(ctx, "phi", api.VersionStateRequest{})))
		e, err := c.Emergency(ctx, api.EmergencyRequest{All: true, Reason: "nobody says that phi is"})
		c.must(err)
		if !slices.Equal(e.Skipped, []string{"phi"}) || c.finish(e.Incident.Job).State != "done" {
			c.Fatalf("%+v", e)
		}
		if got := c.states("phi"); got != "deactivated compromised deactivated" {
			c.Fatalf("phi is %s", got)
		}
		_, d = c.emergency(api.EmergencyRequest{All: true, Reason: "phi is", Compromised: []api.IncidentVersion{{Key: "phi", Version: 3}}})
		if got := c.states("phi"); got != "deactivated compromised compromised active" || *d.Remaining != 0 {
			c.Fatalf("phi is %s; %+v", got, d)
		}
	})
}

// TestAllIsDecidedByOurRows: whoever writes to the database keeps no key out of an emergency by giving it another purpose or
// other states; those that can be read are rotated when they are named.
func TestAllIsDecidedByOurRows(t *testing.T) {
	for name, forge := range map[string]string{
		"another purpose": "UPDATE keys SET purpose = 'data' WHERE name = 'phi2'",
		"another state":   "UPDATE key_versions SET state = 'deactivated' WHERE key_id = (SELECT id FROM keys WHERE name = 'phi2')",
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t)
			c.must(second(c.CreateKey(c.Context(), api.CreateKeyRequest{Name: "phi2", Purpose: "phi"})))
			sqlitetest.Exec(t, filepath.Join(c.dir, "keyturn.db"), forge)
			for _, in := range []api.EmergencyRequest{{Purpose: "phi", Reason: "x"}, {All: true, Reason: "x"}} {
				_, err := c.Emergency(t.Context(), in)
				c.wants(err, api.CodeIntegrity, "keys")
				if err == nil || !strings.Contains(err.Error(), "phi2") {
					t.Errorf("it says %v", err)
				}
			}
			if got := c.states("phi"); got != "active" {
				t.Errorf("phi is %s", got)
			}
			if events := c.events(keyturn.AuditQuery{Type: "incident"}); len(events) != 2 || !strings.Contains(events[0], `"success":false`) {
				t.Errorf("%q", events)
			}
			if _, d := c.emergency(api.EmergencyRequest{Keys: []string{"phi"}, Reason: "x"}); d.Rotated != 1 {
				t.Errorf("%+v", d)
			}
		})
	}
}
