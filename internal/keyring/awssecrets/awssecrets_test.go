package awssecrets_test

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/awssecrets"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keyring/remote"
	"github.com/keyturn/keyturn/internal/mototest"
)

// limit is short, for the parts in which nobody answers.
const limit = 3 * time.Second

const (
	keyOne = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // 32 bytes
	keyTwo = "YW5vdGhlciBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3Q="
)

//go:embed testdata/recorded.json
var recordedJSON []byte

// recorded is what AWS answered to others; see testdata/README.md.
type recorded struct {
	Answers map[string]map[string]any
	Errors  []struct {
		From   string
		Status int
		Body   map[string]string
	}
}

func readRecorded(t *testing.T) recorded {
	t.Helper()
	var r recorded
	if err := json.Unmarshal(recordedJSON, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// standIn answers as recorded, where there is no server that nobody here wrote.
type standIn struct {
	t        *testing.T
	recorded recorded
	mu       sync.Mutex                // guards secrets
	secrets  map[string]map[string]any // by name: the members of the answer that matter
}

func newStandIn(t *testing.T, secrets map[string]map[string]any) *standIn {
	return &standIn{t: t, recorded: readRecorded(t), secrets: secrets}
}

func (s *standIn) start() string {
	server := httptest.NewServer(s)
	s.t.Cleanup(server.Close)
	return server.URL
}

func arnOf(name string) string {
	return "arn:aws:secretsmanager:us-east-1:111111111111:secret:" + name + "-AbCdEf"
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ SecretId, VersionStage, Name, SecretString, ClientRequestToken string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
		s.t.Errorf("%s %s: %v", r.Method, r.Header.Get("Authorization"), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Header.Get("X-Amz-Target") {
	case "secretsmanager.GetSecretValue":
		name := strings.TrimSuffix(strings.TrimPrefix(in.SecretId, arnOf("")[:len(arnOf(""))-len("-AbCdEf")]), "-AbCdEf")
		secret, ok := s.secrets[name]
		if !ok || in.VersionStage != "AWSCURRENT" {
			s.fail(w, "ResourceNotFoundException")
			return
		}
		body := maps.Clone(s.recorded.Answers["value"])
		delete(body, "SecretBinary")
		maps.Copy(body, map[string]any{"Name": name, "ARN": arnOf(name)})
		maps.Copy(body, secret)
		answer(w, http.StatusOK, body)
	case "secretsmanager.CreateSecret":
		if _, taken := s.secrets[in.Name]; taken || in.ClientRequestToken == "" {
			s.fail(w, "ResourceExistsException")
			return
		}
		s.secrets[in.Name] = map[string]any{"SecretString": in.SecretString}
		body := maps.Clone(s.recorded.Answers["created"])
		maps.Copy(body, map[string]any{"Name": in.Name, "ARN": arnOf(in.Name)})
		answer(w, http.StatusOK, body)
	default:
		s.t.Errorf("asked for %s", r.Header.Get("X-Amz-Target"))
	}
}

func (s *standIn) fail(w http.ResponseWriter, name string) {
	for _, e := range s.recorded.Errors {
		if e.Body["__type"] == name {
			answer(w, e.Status, e.Body)
			return
		}
	}
	s.t.Errorf("no error %s is recorded", name)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// open opens a URL by the server at base.
func open(ctx context.Context, t *testing.T, base, url string) (keyring.MasterKey, error) {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", base)
	return awssecrets.Driver{Limit: limit}.Open(ctx, url)
}

func harness(base, one, other string) keyringtest.RemoteHarness {
	opens := func(url string) func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error) {
		return func(ctx context.Context, t *testing.T, base string, limit time.Duration) (keyring.MasterKey, error) {
			t.Helper()
			t.Setenv("AWS_ENDPOINT_URL", base)
			return awssecrets.Driver{Limit: limit}.Open(ctx, url)
		}
	}
	says := func(code string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, text string) {
			answer(w, http.StatusBadRequest, map[string]string{"__type": code, "Message": text})
		}
	}
	return keyringtest.RemoteHarness{
		Server: base, Open: opens(one), Other: opens(other), Calls: remote.Tries,
		Throttle: says("ThrottlingException"), Deny: says("AccessDeniedException"),
		Headers: []string{"Authorization", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Target"},
		Secrets: []string{mototest.AccessKey, mototest.SecretKey, mototest.SessionToken, keyOne, keyTwo},
	}
}

func TestRecordedAnswers(t *testing.T) {
	mototest.Env(t)
	base := newStandIn(t, map[string]map[string]any{"one": {"SecretString": keyOne}, "app/two": {"SecretString": `{"master":"` + keyTwo + `"}`}}).start()
	keyringtest.ExerciseRemote(t, harness(base, "awssecretsmanager:///one?region=us-east-1", "awssecretsmanager:///app/two?field=master&region=us-east-1"))
}

// However a secret holds the key and however it is called, it is one key; what holds none is refused without being quoted.
func TestSecrets(t *testing.T) {
	mototest.Env(t)
	raw, _ := base64.StdEncoding.DecodeString(keyOne)
	base := newStandIn(t, map[string]map[string]any{
		"text": {"SecretString": keyOne}, "padded": {"SecretString": " " + keyOne + "\n"}, "binary": {"SecretBinary": raw}, "/slash": {"SecretString": keyOne},
		"json": {"SecretString": `{"master":"` + keyOne + `","n":1,"short":"canary","nothing":null}`}, "short": {"SecretString": "canary-no-key"}, "empty": {"SecretString": ""},
		"long": {"SecretBinary": append(raw, 0)}, "zeroes": {"SecretBinary": make([]byte, 32)}, "neither": {}, "pending": {"SecretString": keyOne, "VersionStages": []string{"AWSPENDING"}},
		"misnamed": {"SecretString": keyOne, "Name": "text"}, "noname": {"SecretString": keyOne, "Name": nil, "ARN": nil},
	}).start()
	t.Setenv("AWS_REGION", "us-east-1")
	for url, canonical := range map[string]string{
		"text": "text?region=us-east-1", "text?region=us-east-1": "text?region=us-east-1", "padded": "padded?region=us-east-1", "binary": "binary?region=us-east-1",
		"/slash": "/slash?region=us-east-1", "json?field=master": "json?field=master&region=us-east-1", arnOf("text"): arnOf("text"),
		arnOf("json") + "?field=master": arnOf("json") + "?field=master",
	} {
		if got, err := (awssecrets.Driver{}).Canonical(t.Context(), "awssecretsmanager:///"+url); err != nil || got != "awssecretsmanager:///"+canonical {
			t.Errorf("%s is %s, %v", url, got, err)
		}
		k, err := open(t.Context(), t, base, "awssecretsmanager:///"+url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		want := keyringtest.Master(t, "same", []byte("0123456789abcdef0123456789abcdef")...)
		if k.URL() != "awssecretsmanager:///"+canonical || k.Provider() != "awssecretsmanager" || k.Kind() != keyring.Holds || k.ID() != want.ID() {
			t.Errorf("%s opens as %s, %s, %s, %s", url, k.URL(), k.Provider(), k.Kind(), k.ID())
		}
		_ = k.Close()
	}
	for url, want := range map[string]api.Code{
		"none": api.CodeNotFound, "short": api.CodeInvalid, "empty": api.CodeInvalid, "long": api.CodeInvalid, "zeroes": api.CodeInvalid, "neither": api.CodeInvalid,
		"json": api.CodeInvalid, "json?field=other": api.CodeInvalid, "json?field=n": api.CodeInvalid, "json?field=short": api.CodeInvalid, "json?field=nothing": api.CodeInvalid,
		"text?field=master": api.CodeInvalid, "binary?field=master": api.CodeInvalid, "pending": api.CodeIntegrity, "misnamed": api.CodeIntegrity, "noname": api.CodeIntegrity,
		arnOf("noname"): api.CodeIntegrity,
	} {
		_, err := open(t.Context(), t, base, "awssecretsmanager:///"+url)
		if fault.CodeOf(err) != want || fault.FieldOf(err) != "" {
			t.Errorf("%s: %v (code %q, field %q), want %q", url, err, fault.CodeOf(err), fault.FieldOf(err), want)
		} else if strings.Contains(err.Error()+fault.NextOf(err), "canary") || strings.Contains(err.Error(), keyOne) {
			t.Errorf("%s: quoted: %v", url, err)
		}
	}
}

func TestURLsAreRefused(t *testing.T) {
	mototest.Env(t)
	for _, rest := range []string{
		":///", "://", ":one", "://one?region=us-east-1", ":///one two?region=us-east-1", ":///one", ":///one?region=", ":///one?region=canary", ":///one?region=us-east-1&x=y",
		":///one?region=us-east-1&endpoint=https://evil.org", ":///one?field=a%20b&region=us-east-1", ":///one?field=%22&region=us-east-1", ":///" + strings.Repeat("a", 641) + "?region=us-east-1",
		":///" + arnOf("x") + "?region=us-east-2", ":///arn:aws:kms:us-east-1:111111111111:secret:x-AbCdEf",
	} {
		for name, err := range map[string]error{
			"Open":     second(awssecrets.Driver{}.Open(t.Context(), "awssecretsmanager"+rest)),
			"Generate": awssecrets.Driver{}.Generate(t.Context(), "awssecretsmanager"+rest),
		} {
			if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s, %s: %v (field %q, next %q)", name, rest, err, fault.FieldOf(err), fault.NextOf(err))
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Every error that AWS was recorded to answer has a code here, and its text is not shown.
func TestRecordedErrors(t *testing.T) {
	mototest.Env(t)
	want := map[string]api.Code{
		"ResourceNotFoundException": api.CodeNotFound, "ResourceExistsException": api.CodeConflict, "InvalidRequestException": api.CodeWrongState,
		"ValidationException": api.CodeInvalid, "AccessDeniedException": api.CodeDenied,
	}
	seen := map[string]bool{}
	for _, e := range readRecorded(t).Errors {
		name := e.Body["__type"]
		seen[name] = true
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, e.Status, e.Body) }))
		_, opening := open(t.Context(), t, server.URL, "awssecretsmanager:///one?region=us-east-1")
		making := awssecrets.Driver{Limit: limit}.Generate(t.Context(), "awssecretsmanager:///one?region=us-east-1")
		server.Close()
		for doing, err := range map[string]error{"opening": opening, "making": making} {
			if want[name] == "" || fault.CodeOf(err) != want[name] || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), e.Body["Message"]) {
				t.Errorf("%s, %s: %v (code %q), want %q", name, doing, err, fault.CodeOf(err), want[name])
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s isn't recorded", name)
		}
	}
}

// generates: what was made opens, and is never replaced.
func generates(t *testing.T, base string) {
	d := awssecrets.Driver{Limit: limit}
	t.Setenv("AWS_ENDPOINT_URL", base)
	for _, rest := range []string{"made?region=us-east-1", "made/json?field=master_key&region=us-east-1"} {
		url := "awssecretsmanager:///" + rest
		if err := d.Generate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		k, err := d.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Generate(t.Context(), url); fault.CodeOf(err) != api.CodeConflict || !strings.Contains(fault.NextOf(err), "lock the store") {
			t.Errorf("generating over a key: %v, next %q", err, fault.NextOf(err))
		}
		again, err := d.Open(t.Context(), url)
		if err != nil || again.ID() != k.ID() {
			t.Errorf("after an attempt to replace it: %v", err)
		}
	}
	if err := d.Generate(t.Context(), "awssecretsmanager:///"+arnOf("x")); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL {
		t.Errorf("by an ARN: %v", err)
	}
}

func TestGenerate(t *testing.T) {
	mototest.Env(t)
	generates(t, newStandIn(t, map[string]map[string]any{}).start())
}
