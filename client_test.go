package keyturn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// transport answers requests in process and remembers them.
type transport struct {
	requests []*http.Request
	bodies   []string
	answer   func(n int, r *http.Request) (*http.Response, error) // n counts requests from 1
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	tr.requests, tr.bodies = append(tr.requests, r), append(tr.bodies, body)
	return tr.answer(len(tr.requests), r)
}

func reply(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {contentType}},
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

func ok(body string) *transport {
	return &transport{answer: func(int, *http.Request) (*http.Response, error) { return reply(200, "application/json", body), nil }}
}

func problem(status int, p api.Problem) *http.Response {
	p.Type, p.Status = "about:blank", status
	b, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return reply(status, "application/problem+json", string(b))
}

// TestEveryRoute calls every method and compares what goes over the wire with DESIGN's route list.
func TestEveryRoute(t *testing.T) {
	ctx := context.Background()
	state := api.VersionStateRequest{Version: 2, Reason: "r"}
	const stateBody = `{"version":2,"reason":"r"}`
	var discard bytes.Buffer
	stamp := time.Date(2026, 1, 15, 10, 30, 45, 123456000, time.UTC)
	cases := []struct {
		want, body string
		call       func(c *Client) error
	}{
		{"POST /v1/keys", `{"name":"phi"}`, func(c *Client) error { _, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: "phi"}); return err }},
		{"GET /v1/keys?after=a&limit=5", "", func(c *Client) error { _, err := c.Keys(ctx, "a", 5); return err }},
		{"GET /v1/keys/phi", "", func(c *Client) error { _, err := c.Key(ctx, "phi"); return err }},
		{"POST /v1/keys/phi/rotate", `{"reason":"r","ifVersion":3}`, func(c *Client) error {
			_, err := c.RotateKey(ctx, "phi", api.RotateKeyRequest{Reason: "r", IfVersion: 3})
			return err
		}},
		{"POST /v1/keys/phi/suspend", stateBody, func(c *Client) error { _, err := c.SuspendKey(ctx, "phi", state); return err }},
		{"POST /v1/keys/phi/resume", stateBody, func(c *Client) error { _, err := c.ResumeKey(ctx, "phi", state); return err }},
		{"POST /v1/keys/phi/disable", stateBody, func(c *Client) error { _, err := c.DisableKey(ctx, "phi", state); return err }},
		{"POST /v1/keys/phi/compromise", stateBody, func(c *Client) error { _, err := c.CompromiseKey(ctx, "phi", state); return err }},
		{"POST /v1/destructions/run", `{"dryRun":true}`, func(c *Client) error { _, err := c.DestroyDue(ctx, api.DestroyDueRequest{DryRun: true}); return err }},
		{"POST /v1/keys/phi/destroy", stateBody, func(c *Client) error { _, err := c.DestroyKey(ctx, "phi", state); return err }},
		{"POST /v1/keys/phi/undestroy", stateBody, func(c *Client) error { _, err := c.UndestroyKey(ctx, "phi", state); return err }},
		{"POST /v1/keys/phi/import", `{"material":"AQI="}`, func(c *Client) error {
			_, err := c.ImportKey(ctx, "phi", api.ImportKeyRequest{Material: []byte{1, 2}})
			return err
		}},
		{"POST /v1/keys/phi/export", `{"reason":"r"}`, func(c *Client) error {
			_, err := c.ExportKey(ctx, "phi", api.ExportKeyRequest{Reason: "r"})
			return err
		}},
		{"POST /v1/keys/phi/datakey", `{"bytes":32}`, func(c *Client) error { _, err := c.DataKey(ctx, "phi", api.DataKeyRequest{Bytes: 32}); return err }},
		{"POST /v1/keys/phi/derive", `{"label":"l"}`, func(c *Client) error { _, err := c.DeriveKey(ctx, "phi", api.DeriveRequest{Label: "l"}); return err }},
		{"POST /v1/keys/phi/encrypt", `{"plaintext":"AQI=","context":{"patient":"17"}}`, func(c *Client) error {
			_, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte{1, 2}, Context: map[string]string{"patient": "17"}})
			return err
		}},
		{"POST /v1/keys/phi/decrypt", `{"ciphertext":"kt1.x"}`, func(c *Client) error {
			_, err := c.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: "kt1.x"})
			return err
		}},
		{"POST /v1/keys/phi/rewrap", `{"ciphertext":"kt1.x"}`, func(c *Client) error {
			_, err := c.Rewrap(ctx, "phi", api.RewrapRequest{Ciphertext: "kt1.x"})
			return err
		}},
		{"POST /v1/keys/phi/encrypt/batch", `{"items":[]}`, func(c *Client) error { _, err := c.EncryptBatch(ctx, "phi", []api.EncryptRequest{}); return err }},
		{"POST /v1/keys/phi/decrypt/batch", `{"items":[]}`, func(c *Client) error { _, err := c.DecryptBatch(ctx, "phi", []api.DecryptRequest{}); return err }},
		{"POST /v1/keys/phi/rewrap/batch", `{"items":[]}`, func(c *Client) error { _, err := c.RewrapBatch(ctx, "phi", []api.RewrapRequest{}); return err }},
		{"POST /v1/inspect", `{"ciphertext":"kt1.x"}`, func(c *Client) error { _, err := c.Inspect(ctx, "kt1.x"); return err }},
		{"GET /v1/policies", "", func(c *Client) error { _, err := c.Policies(ctx); return err }},
		{"POST /v1/policies/p", `{"period":"90d"}`, func(c *Client) error {
			_, err := c.SetPolicy(ctx, "p", api.SetPolicyRequest{Period: "90d"})
			return err
		}},
		{"DELETE /v1/policies/p", "", func(c *Client) error { return c.RemovePolicy(ctx, "p") }},
		{"GET /v1/keys/phi/policy", "", func(c *Client) error { _, err := c.EffectivePolicy(ctx, "phi"); return err }},
		{"GET /v1/keys/phi/retirement?version=3", "", func(c *Client) error { _, err := c.Retirement(ctx, "phi", 3); return err }},
		{"GET /v1/rotation", "", func(c *Client) error { _, err := c.RotationStatus(ctx); return err }},
		{"POST /v1/rotation/run", `{"max":3}`, func(c *Client) error { _, err := c.RunRotation(ctx, api.RotationRunRequest{Max: 3}); return err }},
		{"GET /v1/rotation/history?limit=2", "", func(c *Client) error { _, err := c.RotationHistory(ctx, "", "", 2); return err }},
		{"GET /v1/keys/phi/rotations?after=c&limit=5", "", func(c *Client) error { _, err := c.RotationHistory(ctx, "phi", "c", 5); return err }},
		{"GET /v1/master-keys", "", func(c *Client) error { _, err := c.MasterKeys(ctx); return err }},
		{"POST /v1/master-keys", `{"url":"env://K"}`, func(c *Client) error { _, err := c.AddMasterKey(ctx, "env://K"); return err }},
		{"POST /v1/master-keys/remove", `{"url":"env://K"}`, func(c *Client) error { _, err := c.RemoveMasterKey(ctx, "env://K"); return err }},
		{"POST /v1/master-keys/rotate", `{"keks":true}`, func(c *Client) error {
			_, err := c.RotateMasterKeys(ctx, api.RotateMasterRequest{KEKs: true})
			return err
		}},
		{"GET /v1/master-keys/escrow", "", func(c *Client) error { _, err := c.Escrow(ctx); return err }},
		{"POST /v1/master-keys/escrow/prepare", `{"shares":5,"threshold":3}`, func(c *Client) error {
			_, err := c.PrepareEscrow(ctx, api.SplitEscrowRequest{Shares: 5, Threshold: 3})
			return err
		}},
		{"POST /v1/master-keys/escrow/commit", `{"set":"x"}`, func(c *Client) error { _, err := c.CommitEscrow(ctx, "x"); return err }},
		{"POST /v1/master-keys/escrow/verified", `{"set":"x"}`, func(c *Client) error { _, err := c.EscrowVerified(ctx, "x"); return err }},
		{"POST /v1/master-keys/verify", "", func(c *Client) error { _, err := c.VerifyMasterKeys(ctx); return err }},
		{"POST /v1/datasets", `{"name":"p","table":"t","columns":{"ssn":"phi"}}`, func(c *Client) error {
			_, err := c.AddDataset(ctx, api.AddDatasetRequest{Name: "p", Table: "t", Columns: map[string]string{"ssn": "phi"}})
			return err
		}},
		{"GET /v1/datasets", "", func(c *Client) error { _, err := c.Datasets(ctx); return err }},
		{"GET /v1/datasets/p", "", func(c *Client) error { _, err := c.Dataset(ctx, "p"); return err }},
		{"DELETE /v1/datasets/p", "", func(c *Client) error { return c.RemoveDataset(ctx, "p") }},
		{"GET /v1/datasets/p/census", "", func(c *Client) error { _, err := c.Census(ctx, "p"); return err }},
		{"POST /v1/datasets/p/encrypt", `{"workers":2}`, func(c *Client) error {
			_, err := c.EncryptDataset(ctx, "p", api.DatasetRunRequest{Workers: 2})
			return err
		}},
		{"POST /v1/datasets/p/reencrypt", `{"unthrottled":true}`, func(c *Client) error {
			_, err := c.ReencryptDataset(ctx, "p", api.DatasetRunRequest{Unthrottled: true})
			return err
		}},
		{"POST /v1/datasets/p/verify", `{"sample":10}`, func(c *Client) error {
			_, err := c.VerifyDataset(ctx, "p", api.DatasetRunRequest{Sample: 10})
			return err
		}},
		{"POST /v1/datasets/p/decrypt", `{"dryRun":true}`, func(c *Client) error {
			_, err := c.DecryptDataset(ctx, "p", api.DatasetRunRequest{DryRun: true})
			return err
		}},
		{"GET /v1/jobs?after=j9&state=running", "", func(c *Client) error {
			_, err := c.Jobs(ctx, JobFilter{State: "running", After: "j9"})
			return err
		}},
		{"GET /v1/jobs/j1", "", func(c *Client) error { _, err := c.Job(ctx, "j1"); return err }},
		{"GET /v1/jobs/j1/failures?limit=10&offset=20", "", func(c *Client) error { _, err := c.JobFailures(ctx, "j1", 20, 10); return err }},
		{"POST /v1/jobs/j1/pause", "", func(c *Client) error { _, err := c.PauseJob(ctx, "j1"); return err }},
		{"POST /v1/jobs/j1/resume", "", func(c *Client) error { _, err := c.ResumeJob(ctx, "j1"); return err }},
		{"POST /v1/jobs/j1/cancel", "", func(c *Client) error { _, err := c.CancelJob(ctx, "j1"); return err }},
		{"POST /v1/jobs/j1/retry", "", func(c *Client) error { _, err := c.RetryJob(ctx, "j1"); return err }},
		{"GET /v1/jobs/j1/watch", "", func(c *Client) error { return last(c.WatchJob(ctx, "j1")) }},
		{"GET /v1/audit/events?limit=3&resource=key%2Fphi&since=2026-01-15T10%3A30%3A45.123456Z&type=key_use&user=ann", "", func(c *Client) error {
			return last(c.AuditEvents(ctx, AuditQuery{Since: stamp, Type: "key_use", Resource: "key/phi", User: "ann", Limit: 3}))
		}},
		{"GET /v1/audit/tail?follow=true&limit=1", "", func(c *Client) error { return last(c.TailAudit(ctx, true, AuditQuery{Limit: 1})) }},
		{"GET /v1/audit/export", "", func(c *Client) error { _, err := c.ExportAudit(ctx, &discard, AuditQuery{}); return err }},
		{"GET /v1/audit/verify", "", func(c *Client) error { _, err := c.VerifyAudit(ctx); return err }},
		{"POST /v1/audit/checkpoint", "", func(c *Client) error { _, err := c.Checkpoint(ctx); return err }},
		{"POST /v1/principals", `{"name":"ann","role":"auditor"}`, func(c *Client) error {
			_, err := c.CreatePrincipal(ctx, api.CreatePrincipalRequest{Name: "ann", Role: "auditor"})
			return err
		}},
		{"GET /v1/principals", "", func(c *Client) error { _, err := c.Principals(ctx); return err }},
		{"GET /v1/principals/ann", "", func(c *Client) error { _, err := c.Principal(ctx, "ann"); return err }},
		{"POST /v1/principals/ann/disable", "", func(c *Client) error { _, err := c.DisablePrincipal(ctx, "ann"); return err }},
		{"POST /v1/principals/ann/token", "", func(c *Client) error { _, err := c.NewToken(ctx, "ann"); return err }},
		{"GET /v1/roles", "", func(c *Client) error { _, err := c.Roles(ctx); return err }},
		{"GET /v1/roles/auditor", "", func(c *Client) error { _, err := c.Role(ctx, "auditor"); return err }},
		{"GET /v1/whoami", "", func(c *Client) error { _, err := c.WhoAmI(ctx); return err }},
		{"GET /v1/status", "", func(c *Client) error { _, err := c.Status(ctx); return err }},
		{"GET /v1/doctor", "", func(c *Client) error { _, err := c.Doctor(ctx); return err }},
	}
	for _, tc := range cases {
		t.Run(tc.want, func(t *testing.T) {
			tr := ok("{}")
			if err := tc.call(NewClient(tr, WithToken("kt_secret"))); err != nil {
				t.Fatalf("calling: %v", err)
			}
			r := tr.requests[0]
			if got := r.Method + " " + r.URL.RequestURI(); got != tc.want {
				t.Errorf("sent %s, want %s", got, tc.want)
			}
			if tr.bodies[0] != tc.body {
				t.Errorf("sent body %s, want %s", tr.bodies[0], tc.body)
			}
			if got := r.Header.Get("Authorization"); got != "Bearer kt_secret" {
				t.Errorf("sent Authorization %q", got)
			}
			if wantType := map[bool]string{true: "application/json"}[tc.body != ""]; r.Header.Get("Content-Type") != wantType {
				t.Errorf("sent Content-Type %q, want %q", r.Header.Get("Content-Type"), wantType)
			}
		})
	}
}

// last runs an iteration to its end and returns the error it ended with.
func last[T any](seq func(func(T, error) bool)) (err error) {
	for _, e := range seq {
		err = e
	}
	return err
}

func TestAnswersAreTyped(t *testing.T) {
	c := NewClient(ok(`{"name":"phi","id":"00ff","suite":1,"versions":[{"version":3,"state":"active","created":"2026-01-15T10:30:45.123456Z","activated":null}]}`))
	k, err := c.Key(context.Background(), "phi")
	if err != nil {
		t.Fatal(err)
	}
	if k.Name != "phi" || k.Suite != 1 || len(k.Versions) != 1 || k.Versions[0].Version != 3 || k.Versions[0].Activated != nil || k.Versions[0].Created.Nanosecond() != 123456000 {
		t.Errorf("got %+v", k)
	}
}

func TestAllKeysGoesThroughEveryPage(t *testing.T) {
	tr := &transport{answer: func(n int, r *http.Request) (*http.Response, error) {
		return reply(200, "application/json", []string{`{"keys":[{"name":"a"},{"name":"b"}],"next":"b"}`, `{"keys":[{"name":"c"}]}`}[n-1]), nil
	}}
	var names []string
	for k, err := range NewClient(tr).AllKeys(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, k.Name)
	}
	if got := strings.Join(names, " "); got != "a b c" || tr.requests[1].URL.RawQuery != "after=b" {
		t.Errorf("got %s, second request %s", got, tr.requests[1].URL)
	}
}

// TestNamesNeverReachAnotherRoute: a name that would need escaping is refused before anything is sent.
func TestNamesNeverReachAnotherRoute(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a%b", "a b", `x"; drop table`, "ä", "a?b", "a#b", "a\x00"} {
		tr := ok("{}")
		c := NewClient(tr)
		_, err := c.Key(context.Background(), name)
		if CodeOf(err) != api.CodeInvalid || len(tr.requests) != 0 {
			t.Errorf("%q: code %q, %d requests", name, CodeOf(err), len(tr.requests))
		}
		if name != "" && name != "." && strings.Contains(err.Error(), name) && len(name) > 2 {
			t.Errorf("%q: the error repeats the name: %v", name, err)
		}
	}
}

func TestErrors(t *testing.T) {
	cases := []struct {
		name   string
		answer *http.Response
		want   Error
	}{
		{"a problem document", problem(404, api.Problem{Code: api.CodeNotFound, Title: "not found", Detail: "finding key phi", Field: "key", Next: "keyturn key list", RequestID: "r1"}),
			Error{Code: api.CodeNotFound, Message: "finding key phi", Field: "key", Next: "keyturn key list", Status: 404, RequestID: "r1"}},
		{"one without a detail", problem(409, api.Problem{Code: api.CodeInUse, Title: "in use"}), Error{Code: api.CodeInUse, Message: "in use", Status: 409}},
		{"a code newer than this client", problem(409, api.Problem{Code: "novel", Detail: "d"}), Error{Code: "novel", Message: "d", Status: 409}},
		{"a proxy's page", reply(502, "text/html", "<h1>secret</h1>"), Error{Code: api.CodeUnavailable, Message: "calling the server: it answered Bad Gateway", Status: 502}},
		{"an empty 401", reply(401, "", ""), Error{Code: api.CodeUnauthenticated, Message: "calling the server: it answered Unauthorized", Status: 401}},
		{"403", reply(403, "", ""), Error{Code: api.CodeDenied, Message: "calling the server: it answered Forbidden", Status: 403}},
		{"413", reply(413, "", ""), Error{Code: api.CodeTooLarge, Message: "calling the server: it answered Request Entity Too Large", Status: 413}},
		{"418", reply(418, "", ""), Error{Code: api.CodeInvalid, Message: "calling the server: it answered I'm a teapot", Status: 418}},
		{"500", reply(500, "application/problem+json", "{"), Error{Code: api.CodeInternal, Message: "calling the server: it answered Internal Server Error", Status: 500}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tr := &transport{answer: func(int, *http.Request) (*http.Response, error) { return tc.answer, nil }}
			_, err := NewClient(tr).RotateKey(context.Background(), "phi", api.RotateKeyRequest{})
			var e *Error
			if !errors.As(err, &e) || *e != tc.want {
				t.Fatalf("got %#v, want %#v", err, tc.want)
			}
			if !errors.Is(err, &Error{Code: tc.want.Code}) || CodeOf(err) != tc.want.Code {
				t.Errorf("errors.Is or CodeOf don't find the code of %v", err)
			}
			if m, f, n := Explain(err); m != tc.want.Message || f != tc.want.Field || n != tc.want.Next {
				t.Errorf("Explain gives %q, %q, %q", m, f, n)
			}
		})
	}
}

// TestGarbageIsNeverQuoted: promise P3; an answer that can't be read doesn't reach the error's text.
func TestGarbageIsNeverQuoted(t *testing.T) {
	_, err := NewClient(ok(`"hunter2`)).Status(context.Background())
	if CodeOf(err) != api.CodeInternal || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestTransportFailures(t *testing.T) {
	fail := func(err error) *Client {
		return NewClient(&transport{answer: func(int, *http.Request) (*http.Response, error) { return nil, err }})
	}
	if _, err := fail(errors.New("dial tcp: lookup canary")).Status(context.Background()); CodeOf(err) != api.CodeUnavailable || strings.Contains(err.Error(), "canary") {
		t.Errorf("an unreachable server: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := fail(context.Canceled).Status(ctx); CodeOf(err) != api.CodeCancelled || fault.NextOf(err) != "jobs that were begun are not called off by this: keyturn job list" {
		t.Errorf("a cancelled call: %v, %q", err, fault.NextOf(err))
	}
	if _, err := fail(context.Canceled).DestroyDue(ctx, api.DestroyDueRequest{}); !strings.HasPrefix(fault.NextOf(err), "it may be done all the same") {
		t.Errorf("a cancelled call that changes something: %v, %q", err, fault.NextOf(err))
	}
}

// TestRetries: only what changes nothing is repeated, and only when that may help.
func TestRetries(t *testing.T) {
	ctx := context.Background()
	get := func(c *Client) error { _, err := c.Status(ctx); return err }
	decrypt := func(c *Client) error { _, err := c.Decrypt(ctx, "phi", api.DecryptRequest{}); return err }
	create := func(c *Client) error { _, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: "phi"}); return err }
	down := func() (*http.Response, error) {
		return problem(503, api.Problem{Code: api.CodeUnavailable, Title: "down"}), nil
	}
	cut := func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
	denied := func() (*http.Response, error) {
		return problem(403, api.Problem{Code: api.CodeDenied, Title: "no"}), nil
	}
	cases := []struct {
		name  string
		call  func(*Client) error
		first func() (*http.Response, error)
		fails int // answers of first before a good one
		sent  int
		ok    bool
	}{
		{"a GET after two failures", get, down, 2, 3, true},
		{"a GET after a cut connection", get, cut, 1, 2, true},
		{"a GET that never succeeds", get, down, 9, 3, false},
		{"a denied GET", get, denied, 1, 1, false},
		{"decrypt, which changes nothing", decrypt, down, 1, 2, true},
		{"create, which does", create, down, 1, 1, false},
		{"create after a cut connection", create, cut, 1, 1, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &transport{answer: func(n int, _ *http.Request) (*http.Response, error) {
					if n <= tc.fails {
						return tc.first()
					}
					return reply(200, "application/json", "{}"), nil
				}}
				err := tc.call(NewClient(tr, WithRetries(2)))
				if (err == nil) != tc.ok || len(tr.requests) != tc.sent {
					t.Errorf("sent %d requests, want %d; error %v", len(tr.requests), tc.sent, err)
				}
				for _, b := range tr.bodies {
					if b != tr.bodies[0] {
						t.Errorf("a repetition sent another body")
					}
				}
			})
		})
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{answer: func(_ int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}}
		start := time.Now()
		_, err := NewClient(tr).Status(context.Background())
		if took := time.Since(start); CodeOf(err) != api.CodeUnavailable || took != DefaultTimeout {
			t.Errorf("got %v after %v", err, took)
		}
	})
}

func TestCloseCallsTheCloserOnce(t *testing.T) {
	n := 0
	c := NewClient(ok("{}"), WithCloser(func() error { n++; return nil }))
	for range 3 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n != 1 {
		t.Errorf("closed %d times", n)
	}
}

// TestBatchesPairUp: an answer of another length is refused rather than paired wrongly.
func TestBatchesPairUp(t *testing.T) {
	c := NewClient(ok(`{"items":[{"ciphertext":"kt1.a"}]}`))
	if _, err := c.EncryptBatch(context.Background(), "phi", make([]api.EncryptRequest, 2)); CodeOf(err) != api.CodeInternal {
		t.Errorf("got %v", err)
	}
	if items, err := c.EncryptBatch(context.Background(), "phi", make([]api.EncryptRequest, 1)); err != nil || items[0].Ciphertext != "kt1.a" {
		t.Errorf("got %v, %v", items, err)
	}
}

// TestContextsMustBeUTF8: JSON would change them on the way, and what is bound would not be what the caller said.
func TestContextsMustBeUTF8(t *testing.T) {
	ctx, bad := context.Background(), map[string]string{"a": "\xff"}
	for name, call := range map[string]func(*Client) error{
		"encrypt": func(c *Client) error { _, err := c.Encrypt(ctx, "phi", api.EncryptRequest{Context: bad}); return err },
		"decrypt": func(c *Client) error { _, err := c.Decrypt(ctx, "phi", api.DecryptRequest{Context: bad}); return err },
		"rewrap":  func(c *Client) error { _, err := c.Rewrap(ctx, "phi", api.RewrapRequest{Context: bad}); return err },
		"datakey": func(c *Client) error { _, err := c.DataKey(ctx, "phi", api.DataKeyRequest{Context: bad}); return err },
		"derive":  func(c *Client) error { _, err := c.DeriveKey(ctx, "phi", api.DeriveRequest{Context: bad}); return err },
		"batch": func(c *Client) error {
			_, err := c.EncryptBatch(ctx, "phi", []api.EncryptRequest{{}, {Context: map[string]string{"\xff": "b"}}})
			return err
		},
	} {
		tr := ok("{}")
		if err := call(NewClient(tr)); CodeOf(err) != api.CodeInvalid || len(tr.requests) != 0 {
			t.Errorf("%s: %v after %d requests", name, err, len(tr.requests))
		}
	}
}

// JSON would keep U+FFFD in their place. No name that the caller made up is in the error.
func TestTextsMustBeUTF8(t *testing.T) {
	ctx := context.Background()
	for field, call := range map[string]func(*Client) error{
		"text":    func(c *Client) error { _, err := c.NoteIncident(ctx, "inc-1", "laptop \xff"); return err },
		"details": func(c *Client) error { _, err := c.Emergency(ctx, api.EmergencyRequest{Details: "\xc3"}); return err },
		"versions[1].key": func(c *Client) error {
			_, err := c.OpenIncident(ctx, api.OpenIncidentRequest{Versions: []api.IncidentVersion{{Key: "phi"}, {Key: "\xff"}}})
			return err
		},
		"keys[0]": func(c *Client) error {
			_, err := c.Emergency(ctx, api.EmergencyRequest{Keys: []string{"\xff"}})
			return err
		},
	} {
		tr := ok("{}")
		err := call(NewClient(tr))
		if fault.FieldOf(err) != field || CodeOf(err) != api.CodeInvalid || fault.NextOf(err) == "" || len(tr.requests) != 0 {
			t.Errorf("%s: %v after %d requests", field, err, len(tr.requests))
		}
	}
	if _, err := encode(api.EncryptRequest{Plaintext: []byte{0xff}, Context: map[string]string{"a": "\ufffd"}}); err != nil {
		t.Error("what is UTF-8 and what goes in base64 is refused:", err)
	}
	if _, err := encode(api.EncryptRequest{Context: map[string]string{"\xff": ""}}); fault.FieldOf(err) != "context" {
		t.Error(err)
	}
}
