package server

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/httpapi"
	"github.com/keyturn/keyturn/internal/sqlitetest"
	"github.com/keyturn/keyturn/internal/store"
)

const (
	noJob      = "000000000000000000000000" // has the form of an id
	noIncident = "inc-" + noJob
)

// bodies are requests that get as far as the decision, by method and pattern. A row that isn't here sends no body.
var bodies = map[string]any{
	"POST /v1/keys":                        api.CreateKeyRequest{Name: "another"},
	"POST /v1/keys/{key}/destroy":          api.VersionStateRequest{Version: 1, Reason: "matrix"},
	"POST /v1/keys/{key}/import":           api.ImportKeyRequest{Material: []byte("0123456789abcdef0123456789ABCDEF"), Reason: "matrix"},
	"POST /v1/keys/{key}/export":           api.ExportKeyRequest{Reason: "matrix"},
	"POST /v1/keys/{key}/encrypt":          api.EncryptRequest{Plaintext: []byte("x")},
	"POST /v1/keys/{key}/decrypt":          api.DecryptRequest{Ciphertext: "kt1.AAAA"},
	"POST /v1/keys/{key}/encrypt/batch":    api.EncryptBatchRequest{Items: []api.EncryptRequest{{Plaintext: []byte("x")}}},
	"POST /v1/keys/{key}/decrypt/batch":    api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: "kt1.AAAA"}}},
	"POST /v1/keys/{key}/rewrap":           api.RewrapRequest{Ciphertext: "kt1.AAAA"},
	"POST /v1/keys/{key}/rewrap/batch":     api.RewrapBatchRequest{Items: []api.RewrapRequest{{Ciphertext: "kt1.AAAA"}}},
	"POST /v1/keys/{key}/derive":           api.DeriveRequest{Label: "matrix"},
	"POST /v1/inspect":                     api.InspectRequest{Ciphertext: "kt1.AAAA"},
	"POST /v1/master-keys":                 api.MasterKeyRequest{URL: "env://KEYTURN_TEST_NONE"},
	"POST /v1/master-keys/remove":          api.MasterKeyRequest{URL: "env://KEYTURN_TEST_NONE"},
	"POST /v1/master-keys/escrow/prepare":  api.SplitEscrowRequest{Shares: 1, Threshold: 1},
	"POST /v1/master-keys/escrow/commit":   api.CommitEscrowRequest{Set: "00"},
	"POST /v1/master-keys/escrow/verified": api.EscrowVerifiedRequest{Set: "00"},
	"POST /v1/datasets":                    api.AddDatasetRequest{Name: "another", DB: "sqlite:///nonexistent.db", Table: "t", Columns: map[string]string{"c": "phi"}},
	"POST /v1/principals":                  api.CreatePrincipalRequest{Name: "another", Role: "auditor"},
	"POST /v1/datasets/{dataset}/encrypt":  api.DatasetRunRequest{DryRun: true},
	"POST /v1/datasets/{dataset}/verify":   api.DatasetRunRequest{DryRun: true},
	"POST /v1/incidents":                   api.OpenIncidentRequest{Type: "other", Severity: "low", Reason: "matrix"},
	"POST /v1/destructions/run":            api.DestroyDueRequest{DryRun: true},
	"POST /v1/emergency/plan":              api.EmergencyRequest{Keys: []string{"phi"}, Reason: "matrix"},
	"POST /v1/emergency":                   api.EmergencyRequest{Keys: []string{"phi"}, Reason: "matrix", Compromised: []api.IncidentVersion{{Key: "phi", Version: 1}}},
	"POST /v1/incidents/{incident}/notes":  api.IncidentNoteRequest{Text: "matrix"},
	"POST /v1/incidents/{incident}/close":  api.CloseIncidentRequest{Reason: "matrix"},
}

// besides are the actions that a row asks for on its resource beside its own.
var besides = map[string][]access.Action{
	"POST /v1/keys/{key}/import": {access.KeyEncrypt, access.KeyDecrypt}, // the key exists
}

// names stand in the place of {…}.
var names = map[string]string{"key": "phi", "dataset": "patients", "job": noJob, "incident": noIncident, "principal": "bystander", "role": "auditor", "policy": "quarterly"}

// pathOfRow is a path of a row, and the name that stands in it.
func pathOfRow(r *httpapi.Route) (path, name string) {
	path = r.Pattern
	for variable, value := range names {
		if p := strings.Replace(path, "{"+variable+"}", value, 1); p != path {
			path, name = p, value
		}
	}
	if bodies[r.Method+" "+r.Pattern] != nil && r.Method == "POST" && slices.Contains([]string{"/v1/keys", "/v1/datasets", "/v1/principals"}, r.Pattern) {
		name = "another" // what is made is named in the body
	}
	return path, name
}

// populated is a store in which the matrix's names exist.
func populated(t *testing.T) (*Server, caller) {
	t.Helper()
	dir := made(t)
	s := opened(t, dir, Options{})
	admin := inside(s)
	admin.key(t, "phi")
	admin.principal(t, "bystander", "auditor", "key/none")
	file := filepath.Join(t.TempDir(), "app.db")
	sqlitetest.Exec(t, file, `CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT)`, `INSERT INTO patients VALUES (1, '078-05-1120')`)
	admin.must(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "patients", DB: "sqlite://" + file, Table: "patients", Columns: map[string]string{"ssn": "phi"}}, nil)
	return s, admin
}

// Row 13: every row of the table, for every role with full, other and no scope: allowed or denied exactly as the pure
// decision says, and each denial recorded.
func TestAdvisory_CVE_2021_42135_matrix(t *testing.T) {
	s, admin := populated(t)
	denials := 0
	for _, role := range access.Roles() {
		for scope, list := range map[string][]string{"full": {"*"}, "other": {"key/other", "dataset/other", "principal/other"}, "none": {}} {
			name := "m-" + role.Name + "-" + scope
			var made api.Principal
			admin.must(t, "POST", "/v1/principals", api.CreatePrincipalRequest{Name: name, Role: role.Name, Scope: list}, &made)
			c := inside(s)
			c.token = made.Token
			p := &access.Principal{Role: role.Name, Scope: list}
			for _, row := range s.api.Routes() {
				if row.Action == "" {
					continue
				}
				path, resource := pathOfRow(row)
				status, answer := c.call(t, row.Method, path, bodies[row.Method+" "+row.Pattern])
				want := access.Decide(p, row.Action, row.Resource(resource))
				for _, a := range besides[row.Method+" "+row.Pattern] {
					if d := access.Decide(p, a, row.Resource(resource)); !d.Allowed {
						want = d
					}
				}
				if denied := status == 403; denied == want.Allowed || status == 401 {
					t.Errorf("%s (%s) %s %s: %d, the decision is %+v\n%s", role.Name, scope, row.Method, row.Pattern, status, want, answer)
				}
				if status == 403 {
					denials++
				}
			}
		}
	}
	_, log := admin.call(t, "GET", "/v1/audit/events?type=permission_denied", nil)
	if n := bytes.Count(log, []byte("\n")); n != denials || n < 100 {
		t.Errorf("%d denials, %d of them recorded", denials, n)
	}
}

// Row 15: no GET answers with key material, in whatever spelling.
func TestAdvisory_CVE_2022_25244_routes(t *testing.T) {
	s, admin := populated(t)
	admin.must(t, "POST", "/v1/keys/phi/rotate", nil, nil)
	var secrets [][]byte
	for version := range uint32(2) {
		var out api.ExportKeyResponse
		admin.must(t, "POST", "/v1/keys/phi/export", api.ExportKeyRequest{Version: version + 1, Reason: "test"}, &out)
		secrets = append(secrets, out.Material)
	}
	var answers bytes.Buffer
	for _, row := range s.api.Routes() {
		if row.Method == "GET" {
			path, _ := pathOfRow(row)
			_, answer := admin.call(t, "GET", path, nil)
			fmt.Fprintf(&answers, "%s\n%s\n", path, answer)
		}
	}
	text := answers.Bytes()
	if !bytes.Contains(text, []byte(`"phi"`)) {
		t.Fatal("the answers don't show the key at all")
	}
	for _, m := range secrets {
		for _, spelling := range spellings(m) {
			if bytes.Contains(text, spelling) {
				t.Errorf("key material in an answer, as %q", spelling[:8])
			}
		}
	}
}

// spellings are the forms in which bytes could leave: raw, hexadecimal, base64 at each alignment, reversed.
func spellings(secret []byte) [][]byte {
	out := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for shift := range 3 {
		whole := secret[shift : shift+(len(secret)-shift)/3*3]
		out = append(out, []byte(base64.StdEncoding.EncodeToString(whole)), []byte(base64.URLEncoding.EncodeToString(whole)))
	}
	reversed := bytes.Clone(secret)
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	quoted, _ := json.Marshal(string(secret))
	return append(out, reversed, quoted[1:len(quoted)-1])
}

// Row 18: a revoked credential is refused by the first request after a cold start, on every listener.
func TestAdvisory_CVE_2022_41316_listeners(t *testing.T) {
	dir := made(t)
	s := opened(t, dir, Options{})
	admin := inside(s)
	old := admin.principal(t, "app", "application")
	var renewed api.Principal
	admin.must(t, "POST", "/v1/principals/app/token", nil, &renewed)
	off := admin.principal(t, "off", "application")
	admin.must(t, "POST", "/v1/principals/off/disable", nil, nil)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := served(t, dir, Options{})
	embeddedCaller := inside(v.Server)
	for _, token := range []string{old, off} {
		embeddedCaller.token = token
		for name, c := range map[string]caller{"https": v.over(t, "https", token), "http": v.over(t, "http", token), "unix": v.over(t, "unix", token), "in process": embeddedCaller} {
			if status, _ := c.call(t, "GET", "/v1/whoami", nil); status != 401 {
				t.Errorf("%s: %d", name, status)
			}
		}
	}
	v.over(t, "https", renewed.Token).must(t, "GET", "/v1/whoami", nil, nil)
}

// Row 59: what is refused leaves no token behind.
func TestAdvisory_CVE_2026_46405(t *testing.T) {
	s, admin := populated(t)
	auditor := inside(s)
	auditor.token = admin.principal(t, "eve", "auditor")
	tokens := func() (n int) {
		err := s.store.View(t.Context(), func(tx store.Tx) error {
			n = 0
			all, err := tx.Principals(t.Context())
			for _, p := range all {
				list, terr := tx.TokensOf(t.Context(), p.ID)
				if terr != nil {
					return terr
				}
				n += len(list)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := tokens()
	for name, c := range map[string]struct {
		by   caller
		path string
		body any
	}{
		"a name that is taken": {admin, "/v1/principals", api.CreatePrincipalRequest{Name: "eve", Role: "auditor"}},
		"a reserved name":      {admin, "/v1/principals", api.CreatePrincipalRequest{Name: "root", Role: "auditor"}},
		"an unknown role":      {admin, "/v1/principals", api.CreatePrincipalRequest{Name: "new", Role: "god"}},
		"a bad scope":          {admin, "/v1/principals", api.CreatePrincipalRequest{Name: "new", Role: "auditor", Scope: []string{"key/**"}}},
		"denied":               {auditor, "/v1/principals", api.CreatePrincipalRequest{Name: "new", Role: "auditor"}},
		"for nobody":           {admin, "/v1/principals/none/token", nil},
		"denied for another":   {auditor, "/v1/principals/bystander/token", nil},
	} {
		if status, answer := c.by.call(t, "POST", c.path, c.body); status/100 == 2 || bytes.Contains(answer, []byte("kt_")) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		if now := tokens(); now != before {
			t.Errorf("%s: %d tokens, before %d", name, now, before)
		}
	}
}

// Row 39: what a request can name on the host is a master key or somebody's database, to be opened as such; nothing is
// written there, and nothing of what lies there comes back.
func TestAdvisory_CVE_2025_6000(t *testing.T) {
	s, admin := populated(t)
	known := map[string]bool{"MasterKeyRequest.url": true, "AddDatasetRequest.db": true, "AddDatasetRequest.dbEnv": true}
	for _, row := range s.api.Routes() {
		if row.In() == nil {
			continue
		}
		for f := range row.In().Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			for _, word := range []string{"path", "file", "dir", "url", "db", "log", "plugin", "command", "socket"} {
				if full := row.In().Name() + "." + name; strings.Contains(strings.ToLower(name), word) && !known[full] {
					t.Errorf("%s may name a place on the host; is it opened?", full)
				}
			}
		}
	}
	before := tree(t, s.Dir())
	for _, url := range []string{"file:///etc/passwd", "file://" + filepath.Join(s.Dir(), "new.key"), "file:///proc/self/environ", "file:///dev/zero",
		"pkcs11:token=t;object=k?module-path=/usr/lib/softhsm/libsofthsm2.so"} {
		status, answer := admin.call(t, "POST", "/v1/master-keys", api.MasterKeyRequest{URL: url})
		if status/100 == 2 || bytes.Contains(answer, []byte("root:")) {
			t.Errorf("%s: %d %s", url, status, answer)
		}
	}
	for _, db := range []string{"sqlite:///etc/passwd", "sqlite://" + filepath.Join(s.Dir(), "made.db")} {
		status, answer := admin.call(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "x", DB: db, Table: "t", Columns: map[string]string{"c": "phi"}})
		if status/100 == 2 || bytes.Contains(answer, []byte("root:")) {
			t.Errorf("%s: %d %s", db, status, answer)
		}
	}
	// A socket is a file too: what it answers tells whether it is there, and a server behind it takes us for its own user.
	var made api.Principal
	admin.must(t, "POST", "/v1/principals", api.CreatePrincipalRequest{Name: "afar", Role: "owner", Scope: []string{"*"}}, &made)
	afar := inside(s)
	afar.token = made.Token
	for _, db := range []string{"sqlite:///etc/passwd", "mysql://u@/d?socket=/etc/passwd", "mariadb://u@/d?socket=/nonexistent", "mysql://u@/d?%73ocket=/etc/passwd",
		"postgres://u@/d?host=/run/postgresql"} {
		status, answer := afar.call(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "x", DB: db, Table: "t", Columns: map[string]string{"c": "phi"}})
		if status != 400 || !bytes.Contains(answer, []byte("over the network")) {
			t.Errorf("%s: %d %s", db, status, answer)
		}
	}
	if after := tree(t, s.Dir()); after != before {
		t.Errorf("files appeared:\n%s\n%s", before, after)
	}
}

// Row 88: forged page tokens, cursors and filters, with SQL in them or without: refused or simply not found, never an error
// of the database, and nothing happens to the data.
func TestAdvisory_CVE_2026_33503(t *testing.T) {
	_, admin := populated(t)
	forged := []string{"'", "' OR '1'='1", `"; DROP TABLE principals; --`, "phi' UNION SELECT 1--", "%", "_", "\\", "\x00", "0.0", "0.99999999999999999999", "-1.-1",
		"9223372036854775807.0", strings.Repeat("a", 256), noJob, "é", "1) OR (1=1"}
	for _, path := range []string{"/v1/keys?after=", "/v1/jobs?after=", "/v1/jobs?state=", "/v1/audit/events?after=", "/v1/audit/events?resource=", "/v1/audit/events?user=", "/v1/audit/tail?type="} {
		for _, token := range forged {
			if status, answer := admin.call(t, "GET", path+url.QueryEscape(token), nil); status >= 500 {
				t.Errorf("%s%q: %d %s", path, token, status, answer)
			}
		}
	}
	var keys api.KeyList
	if admin.must(t, "GET", "/v1/keys", nil, &keys); len(keys.Keys) != 1 {
		t.Errorf("%+v", keys)
	}
	var people api.PrincipalList
	if admin.must(t, "GET", "/v1/principals", nil, &people); len(people.Principals) != 2 {
		t.Errorf("%+v", people)
	}
}

// Row 45: what is remembered of one caller is never given to another, whoever asks in between and in whatever way.
func TestAdvisory_CVE_2025_11621(t *testing.T) {
	v := served(t, made(t), Options{})
	admin := inside(v.Server)
	callers := map[string]caller{"owner embedded": admin, "owner peer": v.over(t, "unix", "")}
	for i := range 8 {
		name := fmt.Sprintf("app%d", i)
		callers[name+" token"] = v.over(t, []string{"http", "https", "unix"}[i%3], admin.principal(t, name, "application"))
	}
	for range 5 {
		for want, c := range callers { // in another order each time
			var who api.WhoAmI
			if c.must(t, "GET", "/v1/whoami", nil, &who); who.Principal+" "+who.Method != want {
				t.Fatalf("%s is taken for %s", want, who.Principal)
			}
		}
	}
}

func TestFigures(t *testing.T) {
	_, admin := populated(t)
	_, text := admin.call(t, "GET", "/metrics", nil)
	for _, want := range []string{`keyturn_keys{compliance="compliant"} 1`, `keyturn_keys{compliance="overdue"} 0`, "keyturn_ready 1", "keyturn_build_info{version="} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
	if bytes.Contains(text, []byte("phi")) || bytes.Contains(text, []byte("bystander")) {
		t.Error("a name stands in the public figures")
	}
}
