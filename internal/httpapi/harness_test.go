package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/authn"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/kms"
)

// fake stands for every service. What a test doesn't need is a nil interface, whose call panics: which is a test of its
// own (TestAdvisory_CVE_2021_45042).
type fake struct {
	Crypto
	mu     sync.Mutex
	calls  int
	caller access.Caller // of the last call
	fail   error         // what Show answers
	lines  func(w io.Writer, flush func() error) error

	entered chan struct{} // closed by Query, which then waits for its context
}

func (f *fake) called(c *access.Caller) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.caller = *c
	return f.fail
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fake) Encrypt(_ context.Context, c *access.Caller, _ string, plaintext []byte, bound envelope.Context, text string, dst []byte) ([]byte, uint32, error) {
	err := f.called(c)
	return append(dst, seal(plaintext, bound, text)...), 7, err
}

// seal is no cipher: it shows what arrived.
func seal(plaintext []byte, bound envelope.Context, text string) string {
	return "kt1." + base64.RawURLEncoding.EncodeToString(bytes.Join([][]byte{plaintext, bound, []byte(text)}, []byte("|")))
}

func (f *fake) Decrypt(_ context.Context, c *access.Caller, _ string, ciphertext []byte, bound envelope.Context, text string, dst []byte) ([]byte, uint32, error) {
	err := f.called(c)
	return append(dst, seal(ciphertext, bound, text)...), 3, err
}

func (f *fake) EncryptBatch(_ context.Context, c *access.Caller, _ string, in api.EncryptBatchRequest) (out api.EncryptBatchResponse, err error) {
	for i, item := range in.Items {
		bound, err := envelope.NewContext(item.Context)
		if err != nil || i%3 == 2 {
			out.Items = append(out.Items, api.EncryptBatchItem{Error: &api.BatchError{Code: api.CodeInvalid, Message: `"quoted" & <odd>`}})
			continue
		}
		out.Items = append(out.Items, api.EncryptBatchItem{Ciphertext: seal(item.Plaintext, bound, ""), Version: uint32(i)})
	}
	return out, f.called(c)
}

func (f *fake) DecryptBatch(_ context.Context, c *access.Caller, _ string, in api.DecryptBatchRequest) (out api.DecryptBatchResponse, err error) {
	for i, item := range in.Items {
		bound, err := envelope.NewContext(item.Context)
		if err != nil || i%3 == 2 {
			out.Items = append(out.Items, api.DecryptBatchItem{Error: &api.BatchError{Code: api.CodeIntegrity}})
			continue
		}
		out.Items = append(out.Items, api.DecryptBatchItem{Plaintext: []byte(seal([]byte(item.Ciphertext), bound, "")), Version: uint32(i)})
	}
	return out, f.called(c)
}

type fakePrincipals struct {
	rest
	*fake
}

// rest is the principals' other methods.
type rest interface{ Principals }

func (f fakePrincipals) WhoAmI(_ context.Context, c *access.Caller) (api.WhoAmI, error) {
	return api.WhoAmI{Principal: c.Principal.Name, Method: c.Method}, f.called(c)
}

// fakeKeys, fakeJobs and the others keep apart what has the same name in several services.
type fakeKeys struct {
	Keys
	*fake
}

func (f fakeKeys) Create(_ context.Context, c *access.Caller, in api.CreateKeyRequest) (api.Key, error) {
	return api.Key{Name: in.Name}, f.called(c)
}

func (f fakeKeys) Rotate(_ context.Context, c *access.Caller, key string, _ api.RotateKeyRequest) (api.Key, error) {
	return api.Key{Name: key}, f.called(c)
}

func (f fakeKeys) List(_ context.Context, c *access.Caller, _ string, _ int) (api.KeyList, error) {
	return api.KeyList{Keys: []api.Key{}}, f.called(c)
}

func (f fakeKeys) Show(_ context.Context, c *access.Caller, key string) (api.Key, error) {
	return api.Key{Name: key}, f.called(c)
}

// fakeIncidents answers nothing.
type fakeIncidents struct{ Incidents }

// fakeMasters answers nothing; its interface has a method of its own name, so it can't be embedded under it.
type fakeMasters struct{ masters }

type masters interface{ Masters }

type fakeDatasets struct{ Datasets }

type fakeJobs struct{ Jobs }

type fakeAudit struct {
	Audit
	*fake
}

func (f fakeAudit) Tail(ctx context.Context, c *access.Caller, _ gate.Filter, _ bool, w io.Writer, flush func() error) error {
	if err := f.called(c); err != nil {
		return err
	}
	return f.lines(w, flush)
}

func (f fakeAudit) Query(ctx context.Context, c *access.Caller, _ gate.Filter, _ io.Writer) error {
	if err := f.called(c); err != nil {
		return err
	}
	close(f.entered)
	<-ctx.Done()
	return nil
}

type fakeRotation struct{ Rotation }

type fakeReports struct{ Reports }

type fakeSystem struct{ System }

func (fakeSystem) Compliance(context.Context) (kms.Compliance, error) {
	return kms.Compliance{Status: "due_soon", Keys: 3, DueSoon: 1}, nil
}

// signIn knows one token.
type signIn struct{}

const goodToken = "Bearer good"

func (signIn) Name() string { return authn.MethodToken }

func (signIn) Authenticate(_ context.Context, r *http.Request) (*access.Principal, bool, error) {
	switch r.Header.Get("Authorization") {
	case "":
		return nil, false, nil
	case goodToken: // may do everything, so that what a request says is what decides
		return &access.Principal{ID: "1", Name: "app", Role: access.RoleOwner, Scope: []string{"*"}}, true, nil
	case appToken:
		return &access.Principal{ID: "2", Name: "app", Role: access.RoleApplication, Scope: []string{"*"}}, true, nil
	case "Bearer broken":
		return nil, true, fault.New(api.CodeUnavailable, "the store can't be read")
	}
	return nil, true, authn.ErrUnauthenticated
}

// recorder keeps what an audit log would.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
	fail   error
}

func (r *recorder) Record(_ context.Context, ev *audit.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		r.events = append(r.events, *ev)
	}
	return r.fail
}

func (r *recorder) all() []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]audit.Event(nil), r.events...)
}

// rig is an API over fakes.
type rig struct {
	*API
	fake *fake
	log  *recorder
}

func newRig(t testing.TB) *rig {
	t.Helper()
	f, log := &fake{}, &recorder{}
	a, err := New(Config{
		Services: Services{
			Keys: fakeKeys{fake: f}, Crypto: f, Masters: fakeMasters{}, Principals: fakePrincipals{fake: f}, Datasets: fakeDatasets{}, Jobs: fakeJobs{}, Audit: fakeAudit{fake: f}, System: fakeSystem{}, Rotation: fakeRotation{}, Reports: fakeReports{}, Incidents: fakeIncidents{},
		},
		Authn: []authn.Method{signIn{}}, Record: log, Metrics: NewMetrics(), Ready: func() error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{API: a, fake: f, log: log}
}

// call asks without a network.
func (r *rig) call(method, target, body, auth string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "/", strings.NewReader(body))
	req.URL.Path, req.URL.RawQuery, _ = strings.Cut(target, "?")
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// problemOf reads a problem document and checks what all of them have in common.
func problemOf(t testing.TB, w *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("no problem document: %s %q (%v)", w.Header().Get("Content-Type"), w.Body, err)
	}
	if p.Status != w.Code || p.Type != "about:blank" || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d, problem %+v", w.Code, p)
	}
	return p
}

// target is a path of a row, with a value in the place of its {…}.
func target(r *Route) string { return variable.ReplaceAllString(r.Pattern, "abc") }
