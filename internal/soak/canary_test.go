package soak

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/proctest"
)

// TestScannerFindsEveryForm is the mutation check of the leak scan: each form of each canary, planted in noise, is found.
func TestScannerFindsEveryForm(t *testing.T) {
	for _, c := range []Canary{{"text", []byte("canary-3f9a77c1d2-plaintext")}, {"binary", bytes.Repeat([]byte{0xfe, 0x01, 0x80}, 11)}} {
		for form, pattern := range c.forms() {
			noise := append(append([]byte("some noise before "), pattern...), " and after"...)
			if c.Find(noise) == "" {
				t.Errorf("%s: form %s planted and not found", c.Name, form)
			}
		}
		for prefix := range 7 { // inside a longer base64 text, at any alignment
			blob := append(bytes.Repeat([]byte{'x'}, prefix), append(bytes.Clone(c.Value), "tail"...)...)
			if c.Find([]byte(base64.StdEncoding.EncodeToString(blob))) == "" {
				t.Errorf("%s: not found inside base64 after %d bytes", c.Name, prefix)
			}
		}
		if got := c.Find([]byte("nothing of the kind")); got != "" {
			t.Errorf("%s: found as %s where it is not", c.Name, got)
		}
	}
}

// TestCampaignCanary drives a whole life of a store and a server with canaries as master key, data key, plaintexts,
// tokens and environment, with good and malformed requests, and searches everything that is left: files, logs, metrics,
// audit, error bodies, process tables. P3, FAULTS row 15.
func TestCampaignCanary(t *testing.T) { hunt(t, "info") }

// TestAdvisory_CVE_2023_2878: the whole life again at the most talkative log level, where others leaked twice.
func TestAdvisory_CVE_2023_2878(t *testing.T) { hunt(t, "debug") }

// TestAdvisory_CVE_2020_13223: what stands in the environment of a starting server is not logged.
func TestAdvisory_CVE_2020_13223(t *testing.T) {
	k := New(t)
	canaries := []Canary{}
	for i, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "KEYTURN_TOKEN", "KEYTURN_DATASET_URL", "HOME_SECRET"} {
		value := fmt.Sprintf("canary-%d-%s", i, rand.Text())
		canaries = append(canaries, Canary{name, []byte(value)})
		k.Env = append(k.Env, name+"=http://user:"+value+"@127.0.0.1:1/")
	}
	k.Env = append(k.Env, "KEYTURN_LOG__LEVEL=debug")
	server := Serve(k)
	server.MustEnd()
	for _, l := range Scan(canaries, "log", []byte(server.Log())) {
		t.Errorf("%s found in the log as %s", l.Canary, l.Form)
	}
}

// TestAdvisory_CVE_2023_0690: after jobs over a table of canaries, neither the store, its write-ahead log, the exported
// audit log nor any temporary file holds one of them.
func TestAdvisory_CVE_2023_0690(t *testing.T) {
	k := New(t)
	temp := t.TempDir()
	k.Env = append(k.Env, "TMPDIR="+temp)
	path := filepath.Join(t.TempDir(), "app.db")
	app := newApplication(t, path)
	secret := "canary-patient-" + rand.Text()
	app.exec(`UPDATE patients SET ssn = ? || id`, secret)
	k.OK(nil, "dataset", "add", "patients", "--db", "sqlite://"+path, "--table", "patients", "--column", "ssn=phi")
	var said []byte
	for _, args := range [][]string{{"dataset", "encrypt", "patients"}, {"key", "rotate", "phi"}, {"dataset", "reencrypt", "patients"}, {"dataset", "verify", "patients"}, {"audit", "export"}} {
		said = append(said, k.OK(nil, args...)...)
	}
	canaries := []Canary{{"patient", []byte(secret)}}
	leaks := Scan(canaries, "output", said)
	for _, dir := range []string{k.Dir, temp} {
		found, _, err := ScanTree(canaries, dir)
		if err != nil {
			t.Fatal(err)
		}
		leaks = append(leaks, found...)
	}
	for _, l := range leaks {
		t.Errorf("%s found in %s as %s", l.Canary, l.Place, l.Form)
	}
}

func hunt(t *testing.T, level string) {
	t.Helper()
	master := make([]byte, 32)
	rand.Read(master)
	k := &Keyturn{tb: t, path: Binary(t), Dir: filepath.Join(t.TempDir(), "kt"),
		Env: []string{"KEYTURN_MASTER_KEY=" + base64.StdEncoding.EncodeToString(master), "HTTPS_PROXY=http://u:canary-proxy-5d81e0@127.0.0.1:1", "SOME_TOKEN=canary-environment-77f3",
			"KEYTURN_LOG__LEVEL=" + level}}
	plain := "canary-plaintext-" + rand.Text()
	canaries := []Canary{{"master key", master}, {"plaintext", []byte(plain)}, {"proxy", []byte("canary-proxy-5d81e0")}, {"environment", []byte("canary-environment-77f3")}}
	var said bytes.Buffer // everything that commands print but must not leak
	run := func(stdin string, args ...string) []byte {
		out, errs, _ := k.Run([]byte(stdin), args...)
		fmt.Fprintf(&said, "%s\n%s\n", out, errs)
		return out
	}
	run("", "init", "--master-key", "env://KEYTURN_MASTER_KEY")
	run("", "key", "create", "phi")
	sealed := string(bytes.TrimSpace(run(plain, "encrypt", "phi", "--context", "patient=17")))
	run(sealed, "decrypt", "phi", "--context", "patient=18") // wrong context
	run(plain, "decrypt", "phi")                             // not a ciphertext: the value must not come back in the error
	run(plain, "encrypt", "no-such-key")
	run("", "key", "rotate", "phi", "--reason", "test")
	var exported api.ExportKeyResponse
	out, _, code := k.Run(nil, "key", "export", "phi", "--version", "1", "--reason", "canary", "--json", "--yes")
	if code != 0 || json.Unmarshal(out, &exported) != nil || len(exported.Material) != 32 {
		t.Fatalf("exporting the canary key: exit %d", code)
	}
	canaries = append(canaries, Canary{"data key", exported.Material})
	var made api.Principal
	out, _, _ = k.Run(nil, "principal", "create", "shop", "--role", "application", "--json")
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	canaries = append(canaries, Canary{"token", []byte(made.Token)})

	log, places := serveAndAbuse(t, k, made.Token, plain)
	said.Write(log)
	var leaks []Leak
	for place, text := range places {
		leaks = append(leaks, Scan(canaries, place, text)...)
	}
	leaks = append(leaks, Scan(canaries, "command output and server log", said.Bytes())...)
	leaks = append(leaks, Scan(canaries, "audit export", k.OK(nil, "audit", "export"))...)
	inDir, files, err := ScanTree(canaries, k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	leaks = append(leaks, inDir...)
	for _, l := range leaks {
		t.Errorf("%s found in %s as %s", l.Canary, l.Place, l.Form)
	}
	if files < 4 || said.Len() < 200 || len(places) < 10 {
		t.Fatalf("searched %d files, %d bytes of output, %d answers: too few to mean anything", files, said.Len(), len(places))
	}
	Report("canary-"+level, 0, "%d canaries in %d forms searched in %d files, %d answers, %d bytes of logs and output: %d leaks", len(canaries), len(canaries[0].forms()), files, len(places), said.Len(), len(leaks))
}

// serveAndAbuse runs a server, sends it good and malformed requests full of canaries, and gives its log and every answer
// that must not hold one.
func serveAndAbuse(t *testing.T, k *Keyturn, token, plain string) (log []byte, places map[string][]byte) {
	t.Helper()
	port, err := proctest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := proctest.Loopback(port)
	var out bytes.Buffer
	cmd := k.Command(context.Background(), "serve", "--listen", "http://"+addr)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	places = map[string][]byte{}
	ask := func(method, path, body, bearer string) {
		req, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Canary", plain)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			places[fmt.Sprintf("%s %s (%d)", method, path, len(places))] = []byte(err.Error())
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		var head bytes.Buffer
		resp.Header.Write(&head)
		places[fmt.Sprintf("%s %s (%d)", method, path, len(places))] = append(head.Bytes(), text...)
	}
	awaitReady(t, "http://"+addr+"/readyz")
	b64 := base64.StdEncoding.EncodeToString([]byte(plain))
	for _, body := range []string{
		`{"plaintext":"` + b64 + `","context":{"a":"b"}}`, `{"plaintext":"` + b64 + `","` + plain + `":1}`, `{"plaintext":["` + b64 + `"]}`,
		`{"plaintext":{"` + plain + `":"x"}}`, `{"plaintext":"` + plain + `"}`, `{"ciphertext":"` + plain + `"}`, plain, `"` + plain + `"`,
		`{"context":{"a":{"b":"` + plain + `"}},"plaintext":"` + b64 + `"}`, `{"plaintext":"` + b64,
	} {
		for _, path := range []string{"/v1/keys/phi/encrypt", "/v1/keys/phi/decrypt", "/v1/keys/phi/rewrap", "/v1/keys/phi/encrypt/batch", "/v1/keys", "/v1/inspect"} {
			ask(http.MethodPost, path, body, token)
		}
	}
	ask(http.MethodGet, "/v1/keys/"+plain, "", token)
	ask(http.MethodGet, "/v1/keys?after="+plain, "", token)
	ask(http.MethodGet, "/v1/keys", "", "kt_"+plain)
	ask(http.MethodGet, "/metrics", "", token)
	ask(http.MethodGet, "/health", "", token)
	for _, f := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, f))
		if err != nil {
			t.Fatal(err)
		}
		if f == "cmdline" { // the environment holds the master key by the operator's own choice (env://)
			places["/proc/…/"+f] = text
		}
	}
	if err := proctest.End(cmd); err != nil {
		t.Fatalf("serve ended badly: %v\n%s", err, out.String())
	}
	return out.Bytes(), places
}

func awaitReady(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(proctest.Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server did not get ready: %v", err)
		}
	}
}
