package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

const encryptPath = "/v1/keys/phi/encrypt"

func TestAnswers(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		method, target, body, auth string
		status                     int
		code                       api.Code
		field                      string
	}{
		"encrypt":           {"POST", encryptPath, `{"plaintext":"aGk="}`, goodToken, 200, "", ""},
		"no body needed":    {"POST", "/v1/keys/phi/rotate", "", goodToken, 200, "", ""},
		"body needed":       {"POST", "/v1/keys", "", goodToken, 400, api.CodeInvalid, ""},
		"unknown member":    {"POST", "/v1/keys", `{"name":"a","nonce":"AAAA"}`, goodToken, 400, api.CodeInvalid, ""},
		"wrong type":        {"POST", encryptPath, `{"plaintext":1}`, goodToken, 400, api.CodeInvalid, "plaintext"},
		"no path":           {"GET", "/v1/nothing", "", goodToken, 404, api.CodeNotFound, "path"},
		"root":              {"GET", "/", "", goodToken, 404, api.CodeNotFound, "path"},
		"wrong method":      {"DELETE", "/v1/keys/phi", "", goodToken, 405, api.CodeInvalid, "method"},
		"public, posted":    {"POST", "/healthz", "", goodToken, 405, api.CodeInvalid, "method"},
		"unknown parameter": {"GET", "/v1/keys?role=owner", "", goodToken, 400, api.CodeInvalid, "query"},
		"parameter needed":  {"GET", "/v1/keys/phi/retirement", "", goodToken, 400, api.CodeInvalid, "version"},
		"parameter twice":   {"GET", "/v1/keys?limit=1&limit=2", "", goodToken, 400, api.CodeInvalid, "limit"},
		"bad limit":         {"GET", "/v1/keys?limit=1001", "", goodToken, 400, api.CodeInvalid, "limit"},
		"bad query":         {"GET", "/v1/keys?limit=%zz", "", goodToken, 400, api.CodeInvalid, "query"},
		"bad time":          {"GET", "/v1/audit/events?since=yesterday", "", goodToken, 400, api.CodeInvalid, "since"},
		"nobody":            {"GET", "/v1/keys", "", "", 401, api.CodeUnauthenticated, ""},
		"bad token":         {"GET", "/v1/keys", "", "Bearer bad", 401, api.CodeUnauthenticated, ""},
		"store down":        {"GET", "/v1/keys", "", "Bearer broken", 503, api.CodeUnavailable, ""},
		"healthz":           {"GET", "/healthz", "", "", 200, "", ""},
		"healthz by HEAD":   {"HEAD", "/healthz", "", "", 200, "", ""},
		"readyz":            {"GET", "/readyz", "", "", 200, "", ""},
		"metrics":           {"GET", "/metrics", "", "", 200, "", ""},
	} {
		w := r.call(c.method, c.target, c.body, c.auth)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		if c.code != "" {
			if p := problemOf(t, w); p.Code != c.code || p.Field != c.field {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

func TestErrorsOfServices(t *testing.T) {
	r := newRig(t)
	for _, code := range api.Codes() {
		r.fake.fail = fault.Wrap(code, errors.New("cause with CANARY"), "showing a key").WithField("key").WithNext("try another")
		w := r.call("GET", "/v1/keys/phi", "", goodToken)
		p := problemOf(t, w)
		if w.Code != fault.HTTPStatus(code) || p.Code != code || p.Field != "key" || p.Next != "try another" || p.RequestID == "" {
			t.Errorf("%s: %d %+v", code, w.Code, p)
		}
		if strings.Contains(w.Body.String(), "CANARY") {
			t.Errorf("%s: a cause's own text left", code)
		}
		if retry := w.Header().Get("Retry-After") != ""; retry != (w.Code == 503) {
			t.Errorf("%s: Retry-After %v", code, retry)
		}
	}
	r.fake.fail = errors.New("driver says CANARY")
	if p := problemOf(t, r.call("GET", "/v1/keys/phi", "", goodToken)); p.Code != api.CodeInternal || strings.Contains(p.Detail, "CANARY") {
		t.Errorf("an error that nobody classified: %+v", p)
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t)
	var h Health
	if err := json.Unmarshal(r.call("GET", "/health", "", "").Body.Bytes(), &h); err != nil {
		t.Fatal(err)
	}
	if h.Status != "ok" || h.KeyRotation.Status != "due_soon" || h.KeyRotation.Keys != 3 || h.FIPS.Version == "" {
		t.Errorf("%+v", h)
	}
	r.ready = func() error { return fault.New(api.CodeUnavailable, "the audit log has stopped") }
	if w := r.call("GET", "/readyz", "", ""); w.Code != 503 {
		t.Errorf("readyz of a server that can't record: %d", w.Code)
	}
	if w := r.call("GET", "/healthz", "", ""); w.Code != 200 {
		t.Errorf("healthz of a process that runs: %d", w.Code)
	}
	if err := json.Unmarshal(r.call("GET", "/health", "", "").Body.Bytes(), &h); err != nil || h.Status != "degraded" {
		t.Errorf("%+v (%v)", h, err)
	}
}

// Row 17: every row is either on the list of five or refuses whoever isn't known.
func TestAdvisory_CVE_2022_36129(t *testing.T) {
	r := newRig(t)
	var public []string
	for _, row := range r.Routes() {
		if row.Public {
			public = append(public, row.Pattern)
		}
		for _, auth := range []string{"", "Bearer bad", "Basic YTpi"} {
			w := r.call(row.Method, target(row), "{}", auth)
			if refused := w.Code == http.StatusUnauthorized; refused == row.Public {
				t.Errorf("%s %s with %q: %d", row.Method, row.Pattern, auth, w.Code)
			}
		}
	}
	if want := []string{"/healthz", "/readyz", "/health", "/metrics", "/openapi.json"}; !slices.Equal(public, want) {
		t.Errorf("public: %v", public)
	}
	if r.fake.count() != 0 {
		t.Errorf("%d calls of a service for nobody", r.fake.count())
	}
}

// Rows 4 and 8: who isn't known can't tell what exists, whatever he presents: the answers are the same to the byte.
func TestAdvisory_CVE_2020_25594(t *testing.T) {
	r := newRig(t)
	answer := func(method, path, auth string) string {
		w := r.call(method, path, "", auth)
		var b strings.Builder
		if err := w.Result().Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := answer("GET", "/v1/keys/phi", "")
	for _, row := range r.Routes() {
		if row.Public {
			continue
		}
		for i := range 20 {
			missing := target(row) + strings.Repeat("x", i)
			for _, auth := range []string{"", "Bearer bad", "Bearer kt_unknown", "Basic eDp5"} {
				if got := answer(row.Method, missing, auth); got != want {
					t.Fatalf("%s %s with %q differs:\n%s\n%s", row.Method, missing, auth, got, want)
				}
			}
		}
	}
	for _, odd := range []string{"/", "//", "/v1/../v1/keys", "/v1/keys/%2e", "/v1/keys/\x00", "/" + strings.Repeat("a", 5000), "/v1/keys?limit=x"} {
		if got := answer("PATCH", odd, ""); got != want {
			t.Errorf("%q differs: %s", odd, got)
		}
	}
}

func TestAdvisory_CVE_2020_35177(t *testing.T) { TestAdvisory_CVE_2020_25594(t) }

// Row 44: nothing of a body is decoded, or read, before the caller is known and the route found.
func TestAdvisory_CVE_2025_12044(t *testing.T) {
	r := newRig(t)
	read := func(method, path, auth string) (bytes int, decoded int64) {
		before := r.decodes.Load()
		body := &countingReader{r: strings.NewReader(`{"plaintext":"aGk="}`)}
		req := httptest.NewRequest(method, path, body)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		r.ServeHTTP(httptest.NewRecorder(), req)
		return body.n, r.decodes.Load() - before
	}
	for _, c := range [][3]string{
		{"POST", encryptPath, ""}, {"POST", encryptPath, "Bearer bad"}, {"POST", encryptPath, "Bearer broken"}, {"POST", "/v1/nothing", goodToken},
		{"DELETE", encryptPath, goodToken}, {"POST", encryptPath + "?x=1", goodToken}, {"GET", "/healthz", ""}, {"POST", "/v1//keys", goodToken},
	} {
		if bytes, decoded := read(c[0], c[1], c[2]); bytes != 0 || decoded != 0 {
			t.Errorf("%v: %d bytes read, %d decoded", c, bytes, decoded)
		}
	}
	for _, path := range []string{encryptPath, "/v1/keys/phi/encrypt/batch", "/v1/keys/phi/decrypt", "/v1/keys/phi/decrypt/batch", "/v1/keys"} {
		if _, decoded := read("POST", path, goodToken); decoded != 1 {
			t.Errorf("%s: %d decoded", path, decoded)
		}
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// Row 11: nothing that the API answers may stay in a cache.
func TestAdvisory_CVE_2021_38554(t *testing.T) {
	r := newRig(t)
	for _, auth := range []string{"", goodToken} {
		for _, row := range r.Routes() {
			if row.Streams() && auth != "" {
				continue // below, over a connection
			}
			for _, body := range []string{"{}", "", "{", strings.Repeat("x", api.MaxBody+1)} {
				h := r.call(row.Method, target(row), body, auth).Header()
				if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s %s with %q: %v", row.Method, row.Pattern, auth, h)
				}
			}
		}
	}
}

// Row 14: a panic in a handler ends one request, is recorded, and tells nobody what it was about.
func TestAdvisory_CVE_2021_45042(t *testing.T) {
	r := newRig(t)
	w := r.call("POST", "/v1/inspect", `{"ciphertext":"CANARY"}`, goodToken) // a nil interface
	if p := problemOf(t, w); w.Code != 500 || p.Code != api.CodeInternal || p.RequestID == "" || strings.Contains(w.Body.String(), "nil pointer") {
		t.Errorf("%d %+v", w.Code, p)
	}
	events := r.log.all()
	if len(events) != 1 || events[0].Type != audit.System || events[0].Action != "panicked" || events[0].UserID != "app" || events[0].Success {
		t.Errorf("recorded %+v", events)
	}
	if w := r.call("POST", encryptPath, `{"plaintext":"aGk="}`, goodToken); w.Code != 200 {
		t.Errorf("after a panic: %d %s", w.Code, w.Body)
	}
}

// Row 94: what a proxy, or somebody who plays one, says of the caller's address is not believed.
func TestAdvisory_GHSA_3fxj_6jh8_hvhx(t *testing.T) {
	r := newRig(t)
	req := httptest.NewRequest("GET", "/v1/keys", nil)
	req.RemoteAddr = "[2001:db8::1]:1234"
	req.Header.Set("Authorization", goodToken)
	for _, h := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "X-Client-Ip", "Cf-Connecting-Ip", "X-Request-Id"} {
		req.Header.Set(h, "192.0.2.1")
	}
	r.ServeHTTP(httptest.NewRecorder(), req)
	if c := r.fake.caller; c.SourceIP != "2001:db8::1" || strings.Contains(c.RequestID, "192") || c.Method != "token" {
		t.Errorf("%+v", c)
	}
	for remote, want := range map[string]string{"192.0.2.7:80": "192.0.2.7", "": "", "@": "", "[::1]:9": "::1"} {
		if got := sourceIP(remote); got != want {
			t.Errorf("sourceIP(%q) = %q", remote, got)
		}
	}
}

// Row 34: no refusal wears the server out.
func TestAdvisory_CVE_2024_6468(t *testing.T) {
	r := newRig(t)
	for _, c := range [][4]string{
		{"GET", "/v1/keys", "", ""}, {"GET", "/v1/keys", "", "Bearer bad"}, {"GET", "/v1/x", "", goodToken}, {"PUT", "/v1/keys", "", goodToken},
		{"POST", encryptPath, "{", goodToken}, {"GET", "/v1/keys?x=1", "", goodToken}, {"GET", "/v1//keys", "", goodToken},
		{"POST", "/v1/inspect", `{"ciphertext":"x"}`, goodToken},
	} {
		for range 10_000 {
			if w := r.call(c[0], c[1], c[2], c[3]); w.Code < 400 {
				t.Fatalf("%v: %d", c, w.Code)
			}
		}
	}
	if w := r.call("POST", encryptPath, `{"plaintext":"aGk="}`, goodToken); w.Code != 200 {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
	if n := len(r.places); n != 0 {
		t.Errorf("%d places for large bodies were not given back", n)
	}
}

// Row 58: the operations that can be asked for are those of the table and no others.
func TestAdvisory_GHSA_rh46_vc3j_w2w3(t *testing.T) {
	r := newRig(t)
	for _, verb := range []string{"", "Encrypt", "encrypt2", "encrypt.batch", "renew", "revoke", "rollback", "help", "internal", "*", "{key}", "encrypt/batch/x", "-"} {
		for _, method := range []string{"POST", "GET", "PUT", "PATCH", "DELETE", "LIST", "HELP", "OPTIONS", "TRACE"} {
			if w := r.call(method, "/v1/keys/phi/"+verb, "{}", goodToken); w.Code < 400 || r.fake.count() != 0 {
				t.Errorf("%s %q: %d, %d calls", method, verb, w.Code, r.fake.count())
			}
		}
	}
}

// Row 96: a query can't say what a request is about: only what a row declares is accepted.
func TestAdvisory_CVE_2022_3100(t *testing.T) {
	r := newRig(t)
	for _, row := range r.Routes() {
		if row.Public {
			continue
		}
		for _, q := range []string{"key=other", "tenant=x", "role=owner", "project_id=1", "X-Role=owner", "=", "a;b=c"} {
			if w := r.call(row.Method, target(row)+"?"+q, "{}", goodToken); w.Code != 400 {
				t.Errorf("%s %s?%s: %d", row.Method, row.Pattern, q, w.Code)
			}
		}
	}
	if r.fake.count() != 0 {
		t.Errorf("%d calls", r.fake.count())
	}
}

func TestRequestIDsAreNeverTheSame(t *testing.T) {
	var a, b requestIDs
	a.seed()
	b.seed()
	seen := map[string]bool{}
	for range 1000 {
		for _, id := range []string{a.next(), b.next()} {
			if seen[id] || len(id) > 40 {
				t.Fatalf("%q", id)
			}
			seen[id] = true
		}
	}
}

// Refused sign-ins are recorded one by one until there are too many, and counted from then on.
func TestRefusedSignInsAreCounted(t *testing.T) {
	now := time.Unix(0, 0)
	log := &recorder{}
	f := newFailures(log, func() time.Time { return now })
	for range failureBurst + 50 {
		if err := f.record(t.Context(), &access.Caller{RequestID: "r"}, api.CodeUnauthenticated); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(log.all()); n != failureBurst {
		t.Errorf("%d events of %d refusals", n, failureBurst+50)
	}
	now = now.Add(time.Second / failureRate)
	_ = f.record(t.Context(), &access.Caller{}, api.CodeUnauthenticated)
	events := log.all()
	if last := events[len(events)-1]; last.Details.Items != 51 || last.Type != audit.AuthFailure || last.Success || last.UserID != "anonymous" {
		t.Errorf("%+v", last)
	}
	log.fail = fault.New(api.CodeUnavailable, "disk full")
	now = now.Add(time.Second)
	if err := f.record(t.Context(), &access.Caller{}, api.CodeUnauthenticated); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a refusal that can't be recorded: %v", err)
	}
	log.fail = nil
	if err := f.flush(t.Context()); err != nil || log.all()[len(log.all())-1].Details.Items != 1 {
		t.Errorf("what could not be recorded is lost: %v, %v", log.all()[len(log.all())-1], err)
	}
}
