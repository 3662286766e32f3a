package keyringtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/keyringtest"
	"github.com/keyturn/keyturn/internal/keyring/remote"
	"github.com/keyturn/keyturn/internal/material"
)

// token is the credential of the toy service.
const token = "token-of-the-toy-service"

// message is what the toy service takes and gives. Fingerprint is set in the answer about a key only.
type message struct {
	Fingerprint string          `json:"fingerprint,omitempty"`
	Key         string          `json:"key"`
	Bytes       []byte          `json:"bytes"`
	Binding     keyring.Binding `json:"binding"`
}

// toyService wraps and unwraps under keys in its memory: POST /key, /wrap, /unwrap.
func toyService(t *testing.T) string {
	masters := map[string]keyring.MasterKey{"one": keyringtest.Master(t, "one"), "two": keyringtest.Master(t, "two")}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in message
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Toy-Token") != token {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		master, out := masters[in.Key], message{Key: in.Key, Bytes: []byte{}}
		var err error
		switch r.URL.Path {
		case "/key":
			out.Fingerprint = master.ID()
		case "/wrap":
			out.Bytes, err = master.Wrap(r.Context(), material.New(in.Bytes), in.Binding)
		case "/unwrap":
			var m *material.Bytes
			if m, err = master.Unwrap(r.Context(), in.Bytes, in.Binding); err == nil {
				out.Bytes = m.Expose()
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// toy is a provider with the toy service; broken names what it gets wrong.
type toy struct {
	base, key, id, broken string
	limit                 time.Duration
	client                *http.Client
	mu                    sync.Mutex
	closed                bool
}

func openToy(ctx context.Context, base, key, broken string, limit time.Duration) (keyring.MasterKey, error) {
	k := &toy{base: base, key: key, broken: broken, limit: limit, client: remote.Client(limit / remote.Tries)}
	if broken == "follows redirects" {
		k.client.CheckRedirect = nil
	}
	if broken == "reads on" || broken == "has no limit" {
		k.client.Transport = nil
	}
	out, err := k.ask(ctx, "/key", message{})
	if err == nil && out.Fingerprint == "" {
		err = fault.New(api.CodeIntegrity, "opening: the answer names no key")
	}
	if err != nil {
		return nil, err
	}
	k.id = out.Fingerprint
	return k, nil
}

func (k *toy) URL() string        { return "toy:" + k.key }
func (k *toy) Provider() string   { return "toy" }
func (k *toy) Kind() keyring.Kind { return keyring.Wraps }
func (k *toy) ID() string         { return k.id }

func (k *toy) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return nil
}

func (k *toy) Wrap(ctx context.Context, m *material.Bytes, b keyring.Binding) ([]byte, error) {
	out, err := k.ask(ctx, "/wrap", message{Bytes: m.Expose(), Binding: b})
	if err != nil {
		return nil, err
	}
	return keyring.Commit(out.Bytes, m, b)
}

func (k *toy) Unwrap(ctx context.Context, blob []byte, b keyring.Binding) (*material.Bytes, error) {
	unwrap := func(wrapped []byte) (*material.Bytes, error) {
		out, err := k.ask(ctx, "/unwrap", message{Bytes: wrapped, Binding: b})
		if err != nil {
			return nil, err
		}
		return material.New(out.Bytes), nil
	}
	if k.broken == "believes every answer" && len(blob) > 35 {
		return unwrap(blob[35:])
	}
	return keyring.Uncommit(blob, b, unwrap)
}

// ask asks up to three times.
func (k *toy) ask(ctx context.Context, path string, in message) (message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return message{}, fault.New(api.CodeUnavailable, "asking: the key is closed")
	}
	if k.broken != "has no limit" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, k.limit)
		defer cancel()
	}
	tries := 3
	if k.broken == "never gives up" {
		tries = 50
	}
	in.Key = k.key
	var err error
	for range tries {
		var out message
		if out, err = k.once(ctx, path, in); fault.CodeOf(err) != api.CodeUnavailable {
			return out, err
		}
	}
	return message{}, err
}

func (k *toy) once(ctx context.Context, path string, in message) (out message, err error) {
	text, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.base+path, bytes.NewReader(text))
	if err != nil {
		return out, err
	}
	r.Header.Set("Toy-Token", token)
	if k.broken == "passes headers on" {
		r.Header.Set("Cookie", "a=b")
	}
	if k.broken == "names its token" {
		r.URL.RawQuery = url.Values{"token": {token}}.Encode()
	}
	answer, err := k.client.Do(r)
	if err != nil {
		return out, remote.Fault(ctx, err, "asking")
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return out, remote.Fault(ctx, err, "asking")
	case answer.StatusCode == http.StatusUnprocessableEntity:
		return out, fault.New(api.CodeIntegrity, "asking: not of this key")
	case answer.StatusCode == http.StatusForbidden && k.broken == "quotes the service":
		return out, fault.New(api.CodeDenied, "asking: "+string(body))
	case answer.StatusCode == http.StatusForbidden:
		return out, fault.New(api.CodeDenied, "asking")
	case answer.StatusCode != http.StatusOK:
		return out, fault.New(api.CodeUnavailable, "asking")
	}
	if err := json.Unmarshal(body, &out); err != nil || out.Bytes == nil {
		return out, fault.New(api.CodeUnavailable, "asking: no usable answer")
	}
	return out, nil
}

func exerciseToy(t *testing.T, broken string) {
	open := func(key string) func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error) {
		return func(ctx context.Context, _ *testing.T, base string, limit time.Duration) (keyring.MasterKey, error) {
			return openToy(ctx, base, key, broken, limit)
		}
	}
	answer := func(status int) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, text string) { http.Error(w, text, status) }
	}
	keyringtest.ExerciseRemote(t, keyringtest.RemoteHarness{
		Server: toyService(t), Open: open("one"), Other: open("two"), Calls: 3,
		Throttle: answer(http.StatusTooManyRequests), Deny: answer(http.StatusForbidden),
		Headers: []string{"Toy-Token"}, Secrets: []string{token},
	})
}

func TestRemote(t *testing.T) { exerciseToy(t, os.Getenv("KEYRINGTEST_BROKEN")) }

// A driver that gets one thing wrong fails the part that is there for it, so the parts can fail.
func TestBrokenDriversFail(t *testing.T) {
	for broken, part := range map[string]string{
		"follows redirects": "redirected", "reads on": "an_endless_answer", "believes every answer": "another_key's_answer", "never gives up": "throttled",
		"passes headers on": "what_was_sent", "names its token": "what_was_sent", "quotes the service": "denied", "has no limit": "never_answered",
	} {
		t.Run(broken, func(t *testing.T) {
			limit, sign := "10m", "--- FAIL: TestRemote/"+part
			if broken == "has no limit" { // it waits for ever
				limit, sign = "5s", "test timed out"
			}
			run := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRemote$/^"+part+"$", "-test.timeout="+limit)
			run.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOCOVERDIR=") }), "KEYRINGTEST_BROKEN="+broken)
			out, err := run.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte(sign)) {
				t.Errorf("the suite ended with %v:\n%s", err, out)
			}
		})
	}
}
