package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/proctest"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

// everything that a store has written or shown so far: the log, the audit log, the files beside the store, the metrics.
func everything(t *testing.T, v *serving, log *syncBuffer) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(log.String())
	for _, path := range []string{"/v1/audit/export", "/v1/status", "/v1/doctor", "/v1/datasets", "/v1/principals", "/metrics", "/health"} {
		_, answer := inside(v.Server).call(t, "GET", path, nil)
		b.Write(answer)
	}
	for _, f := range []string{CheckpointFile, LockFile, DatabaseFile, DatabaseFile + "-wal", DatabaseFile + "-shm", ConfigFile} {
		text, err := os.ReadFile(filepath.Join(v.Dir(), f))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.Bytes()
}

// notIn fails for each spelling of the canary that the text holds.
func notIn(t *testing.T, text []byte, canary, what string) {
	t.Helper()
	for _, spelling := range spellings([]byte(canary)) {
		if at := bytes.Index(text, spelling); at >= 0 {
			t.Errorf("%s stands in the output: …%s…", what, text[max(0, at-60):min(len(text), at+60)])
		}
	}
}

// Row 28: a canary in every header, in the query, the path and every field of a body that isn't meant for the record:
// none of it is in the log at its most talkative, in the audit log, in the store's files or in an answer.
func TestAdvisory_CVE_2024_0831_requests(t *testing.T) {
	const canary = "CANARY-3f9b7c51d2"
	var log syncBuffer
	dir := made(t)
	v := served(t, dir, Options{LogTo: &log, Set: map[string]any{"listen": []string{"http://127.0.0.1:0"}, "log.level": "debug"}})
	admin := inside(v.Server)
	admin.key(t, "phi")
	token := admin.principal(t, "app", "application")
	send := func(method, path, body string, headers ...string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, v.address(t, "http"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path
		req.Header.Set("Authorization", "Bearer "+token)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte(fmt.Sprint(res.Header)), answer...)
	}
	var answers []byte
	for _, header := range []string{
		"User-Agent", "Cookie", "X-Request-Id", "X-Vault-Token", "X-Forwarded-For", "Referer", "Origin", "Accept", "Content-Type", "Traceparent",
		"X-Api-Key", "Proxy-Authorization", "Content-Encoding", "If-None-Match", "Host",
	} {
		answers = append(answers, send("POST", "/v1/keys/phi/encrypt", `{"plaintext":"aGk="}`, header, canary)...)
	}
	for _, auth := range []string{canary, "Bearer " + canary, "Basic " + canary, "Bearer kt_" + canary, "Bearer " + token + canary} {
		answers = append(answers, send("POST", "/v1/keys/phi/encrypt", `{}`, "Authorization", auth)...)
	}
	for _, path := range []string{"/v1/keys/" + canary, "/v1/" + canary, "/v1/keys?after=" + canary, "/v1/keys?" + canary + "=1", "/v1/keys/%2e" + canary, "/v1/jobs/" + canary, "/v1/roles/" + canary} {
		answers = append(answers, send("GET", path, "")...)
	}
	for _, body := range []string{
		`{"plaintext":"` + canary + `"}`, `{"` + canary + `":1}`, canary, `{"plaintext":"aGk=","context":{"` + canary + `":1}}`, `{"plaintext":{"a":"` + canary + `"}}`,
		`{"plaintext":"aGk=","nonce":"` + canary + `"}`, `{"ciphertext":"` + canary + `"}`,
	} {
		for _, verb := range []string{"encrypt", "decrypt", "rewrap", "datakey", "derive", "encrypt/batch", "decrypt/batch", "import", "export", "rotate"} {
			answers = append(answers, send("POST", "/v1/keys/phi/"+verb, body)...)
		}
	}
	notIn(t, answers, canary, "a canary, in an answer,")
	seen := everything(t, v, &log)
	notIn(t, seen, canary, "a canary")
	notIn(t, seen, token, "a token")
	if !bytes.Contains(seen, []byte(`"event_type":"auth_failure"`)) {
		t.Error("the refused sign-ins are not in the audit log: was anything looked at?")
	}
}

// Row 28, the good side: plaintexts, material, data keys, connection passwords that were accepted are nowhere either.
func TestNothingAcceptedLeaks(t *testing.T) {
	var log syncBuffer
	v := served(t, made(t), Options{LogTo: &log, Set: map[string]any{"log.level": "debug"}})
	admin := inside(v.Server)
	admin.key(t, "phi")
	plain, material := "CANARY-plain-4e1f07aa93", "CANARY-material-92d0c1b7e5f3a84a"[:32]
	var sealed api.EncryptResponse
	admin.must(t, "POST", "/v1/keys/phi/encrypt", api.EncryptRequest{Plaintext: []byte(plain)}, &sealed)
	admin.must(t, "POST", "/v1/keys/phi/rewrap", api.RewrapRequest{Ciphertext: sealed.Ciphertext}, nil)
	admin.must(t, "POST", "/v1/keys/phi/decrypt/batch", api.DecryptBatchRequest{Items: []api.DecryptRequest{{Ciphertext: sealed.Ciphertext}}}, nil)
	admin.must(t, "POST", "/v1/keys/legacy/import", api.ImportKeyRequest{Material: []byte(material), Reason: "test"}, nil)
	var dataKey api.DataKeyResponse
	admin.must(t, "POST", "/v1/keys/phi/datakey", api.DataKeyRequest{}, &dataKey)
	var derived api.DeriveResponse
	admin.must(t, "POST", "/v1/keys/phi/derive", api.DeriveRequest{Label: "x"}, &derived)
	var exported api.ExportKeyResponse
	admin.must(t, "POST", "/v1/keys/phi/export", api.ExportKeyRequest{Reason: "test"}, &exported)
	password := "CANARY-pw-77ab31"
	admin.call(t, "POST", "/v1/datasets", api.AddDatasetRequest{
		Name: "far", DB: "postgres://u:" + password + "@127.0.0.1:1/x?connect_timeout=1", Table: "t", PK: []string{"id"}, Columns: map[string]string{"c": "phi"}})
	candidate := "CANARY-candidate-0be2c6d1"
	importing(t, v.Server, admin, candidate)
	seen := everything(t, v, &log)
	for what, canary := range map[string]string{
		"a candidate key": candidate, "a plaintext": plain, "imported material": material, "a data key": string(dataKey.Plaintext), "a derived key": string(derived.Key),
		"exported material": string(exported.Material), "a password": password,
	} {
		notIn(t, seen, canary, what)
	}
}

// importing starts a job with a candidate key, over a table in which it opens nothing, and cancels it.
func importing(t testing.TB, s *Server, admin caller, candidate string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "own.db")
	sqlitetest.Exec(t, file, `CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)`, `INSERT INTO t VALUES (1, 'in clear')`)
	s.opts.Environ = append(environOr(s.opts.Environ), "KEYTURN_DATASET_OWN=sqlite://"+file)
	admin.must(t, "POST", "/v1/datasets", api.AddDatasetRequest{Name: "own", DBEnv: "KEYTURN_DATASET_OWN", Table: "t", Columns: map[string]string{"v": "phi"}}, nil)
	var run api.DatasetRun
	admin.must(t, "POST", "/v1/datasets/own/encrypt", api.DatasetRunRequest{From: &api.DatasetSource{Format: "pgcrypto", Keys: [][]byte{[]byte(candidate)}}}, &run)
	_, _ = admin.call(t, "POST", "/v1/jobs/"+run.Job+"/cancel", nil) // it may have ended already
}

// Row 30: each way of signing in is recorded by its name, and by nothing that was presented.
func TestAdvisory_CVE_2026_46358(t *testing.T) {
	var log syncBuffer
	v := served(t, made(t), Options{LogTo: &log, Set: map[string]any{"log.level": "debug"}})
	admin := inside(v.Server)
	token := admin.principal(t, "app", "key-administrator")
	v.over(t, "https", token).must(t, "GET", "/v1/keys", nil, nil)
	v.over(t, "unix", "").must(t, "GET", "/v1/keys", nil, nil)
	admin.must(t, "GET", "/v1/keys", nil, nil)
	seen := everything(t, v, &log)
	for _, method := range []string{"token", "peer", "embedded"} {
		if !bytes.Contains(seen, []byte(`"method":"`+method+`"`)) {
			t.Errorf("no event says %s", method)
		}
	}
	notIn(t, seen, token, "a token")
	notIn(t, seen, token[20:60], "most of a token")
}

// Row 3: a server started with a canary in every variable that it may look at, and in others, writes none of them.
func TestAdvisory_CVE_2020_13223_server(t *testing.T) {
	if dir := os.Getenv("KEYTURN_TEST_SERVE"); dir != "" {
		serveUntilStdinEnds(dir)
		return
	}
	const canary = "CANARY-env-5c0e88d1"
	ctx, cancel := context.WithTimeout(t.Context(), proctest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestAdvisory_CVE_2020_13223_server$")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // so that one that doesn't end says where it stands
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "KEYTURN_TEST_SERVE="+made(t), "KEYTURN_LOG__LEVEL=debug", "KEYTURN_LISTEN=http://127.0.0.1:0")
	for _, name := range []string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "PGPASSWORD", "PGUSER", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "VAULT_TOKEN",
		"KEYTURN_MASTER_KEY", "KEYTURN_TOKEN", "KEYTURN_DATASET_SHOP", "KEYTURN_SECRETS_KEY", "DATABASE_URL", "SECRET", "NODE_AUTH_TOKEN",
	} {
		cmd.Env = append(cmd.Env, name+"=http://user:"+canary+"@proxy.example")
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "msg=serving") {
		t.Fatalf("it never served:\n%s", out.String())
	}
	notIn(t, []byte(out.String()), canary, "a variable's value")
}
