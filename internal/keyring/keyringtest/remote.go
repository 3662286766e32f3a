package keyringtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/remote"
	"github.com/keyturn/keyturn/internal/material"
)

// RemoteHarness says how a provider over a network is reached, and how its service speaks.
type RemoteHarness struct {
	// Server is the base URL of the service, on loopback. The suite stands before it with a proxy.
	Server string
	// Open opens always the same key, Other another one, through the service at base and no other way. They are called
	// often. One operation of the driver may take so long at most, retries included.
	Open, Other func(ctx context.Context, t *testing.T, base string, limit time.Duration) (keyring.MasterKey, error)
	// Calls is how many requests one operation of the driver makes at most, retries included, as its documentation says.
	Calls int
	// Throttle and Deny answer as the service does to who asks too often and to who may not, with text in the message.
	Throttle, Deny func(w http.ResponseWriter, text string)
	// Headers are the names of all headers that the driver sends, beside those of every HTTP client.
	Headers []string
	// Secrets are the texts that mustn't be shown: credentials, and the keys where the provider holds them.
	Secrets []string
}

// ExerciseRemote runs the contract of keyring.MasterKey over a provider on a network, and then that which its network
// and service can do to it. Every fault is tried on opening a key and, where the provider wraps, on wrapping and
// unwrapping; after every fault the same master key works again by itself.
func ExerciseRemote(t *testing.T, h RemoteHarness) {
	s := &remoteSuite{h: h, p: startProxy(t, h.Server), limit: patient}
	s.watchLogs(t)
	t.Run("contract", func(t *testing.T) { Exercise(t, Harness{Open: s.must(h.Open), Other: s.must(h.Other)}) })
	if open(t, s.must(h.Open)).Kind() == keyring.Holds {
		t.Run("a held key needs no network", s.heldIsLocal)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"throttled", s.throttled},
		{"denied", s.denied},
		{"failing", s.failing},
		{"never answered", s.neverAnswered},
		{"slow", s.slow},
		{"cut off", s.cutOff},
		{"half an answer", s.half},
		{"garbage", s.garbage},
		{"an endless answer", s.endless},
		{"redirected", s.redirected},
		{"another key's answer", s.wrongKey},
		{"nobody there", s.nobodyThere},
		{"an unknown certificate", s.unknownCertificate},
		{"what was sent", s.sent},
	} {
		t.Run(part.name, part.run)
	}
}

// remoteCanary stands in every text that the proxy makes up: a driver repeats none of them.
const remoteCanary = "canary-of-a-foreign-text"

// The limits of a driver: brief where it is waited for in full, and what it is in life where an answer comes, however busy the
// machine is. It isn't longer, as pauses between two tries are parts of it.
const (
	brief   = time.Second
	patient = remote.Limit
)

type remoteSuite struct {
	h     RemoteHarness
	p     *proxy
	limit time.Duration // of the keys that are opened
}

// must opens through the proxy, for parts in which nothing is wrong.
func (s *remoteSuite) must(open func(context.Context, *testing.T, string, time.Duration) (keyring.MasterKey, error)) func(*testing.T) keyring.MasterKey {
	return func(t *testing.T) keyring.MasterKey {
		t.Helper()
		k, err := open(t.Context(), t, s.p.URL, s.limit)
		if err != nil {
			t.Fatalf("opening through the proxy: %v", err)
		}
		return k
	}
}

// operation is one use of a master key; run is nil-safe to repeat, and fails the test if its success is no real one.
type operation struct {
	name string
	run  func(ctx context.Context) error
}

// operations opens the key without a fault and returns what can be done with it. check is the same key past the proxy.
func (s *remoteSuite) operations(t *testing.T) []operation {
	t.Helper()
	k, check := open(t, s.must(s.h.Open)), open(t, func(t *testing.T) keyring.MasterKey {
		k, err := s.h.Open(t.Context(), t, s.h.Server, s.limit)
		if err != nil {
			t.Fatalf("opening without the proxy: %v", err)
		}
		return k
	})
	ops := []operation{{"opening", func(ctx context.Context) error {
		again, err := s.h.Open(ctx, t, s.p.URL, s.limit)
		if err != nil {
			return err
		}
		if again.ID() != k.ID() {
			t.Errorf("opened as %s, it is %s", again.ID(), k.ID())
		}
		return again.Close()
	}}}
	if k.Kind() != keyring.Wraps {
		return ops
	}
	m := material.Random(32)
	blob := wrap(t, k, m)
	same := func(out *material.Bytes) {
		if !out.Equal(m) {
			t.Error("unwrapped to other bytes, without an error")
		}
		out.Destroy()
	}
	return append(ops, operation{"wrapping", func(ctx context.Context) error {
		made, err := k.Wrap(ctx, m, binding)
		if err != nil {
			return err
		}
		out, err := check.Unwrap(t.Context(), made, binding)
		if err != nil {
			t.Errorf("a new wrapping doesn't open: %v", err)
			return nil
		}
		same(out)
		return nil
	}}, operation{"unwrapping", func(ctx context.Context) error {
		out, err := k.Unwrap(ctx, blob, binding)
		if err == nil {
			same(out)
		}
		return err
	}})
}

// under runs every operation under a fault, with a look at its error, and then without: each recovers by itself.
func (s *remoteSuite) under(t *testing.T, what string, fault func(*call), want ...api.Code) {
	t.Helper()
	for _, op := range s.operations(t) {
		s.p.set(fault)
		err := op.run(t.Context())
		calls, _ := s.p.seen()
		s.p.set(nil)
		s.judge(t, op.name+", "+what, err, want...)
		if calls < 1 || calls > s.h.Calls {
			t.Errorf("%s, %s: %d calls, the driver promises 1 to %d", op.name, what, calls, s.h.Calls)
		}
		if err := op.run(t.Context()); err != nil {
			t.Errorf("%s, after %s was over: %v", op.name, what, err)
		}
	}
}

// judge wants err to have one of the codes, and to show nothing that it mustn't.
func (s *remoteSuite) judge(t *testing.T, what string, err error, want ...api.Code) {
	t.Helper()
	if !slices.Contains(want, fault.CodeOf(err)) {
		t.Errorf("%s: %v (code %q), want one of %q", what, err, fault.CodeOf(err), want)
	}
	if err != nil {
		s.hides(t, what, err.Error()+fault.MessageOf(err)+fault.NextOf(err)+fault.FieldOf(err))
	}
}

func (s *remoteSuite) hides(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range append(s.h.Secrets, remoteCanary) {
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				t.Errorf("%s: shown: %s", where, strings.ReplaceAll(text, form, "[IT]"))
			}
		}
	}
}

// watchLogs catches what is printed while the suite runs, by whichever of the process's loggers.
func (s *remoteSuite) watchLogs(t *testing.T) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	stderr, logger, out := os.Stderr, slog.Default(), log.Writer()
	os.Stderr = file
	slog.SetDefault(slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: slog.LevelDebug - 8})))
	log.SetOutput(file)
	t.Cleanup(func() {
		os.Stderr = stderr
		slog.SetDefault(logger)
		log.SetOutput(out)
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
		text, err := io.ReadAll(file)
		if err != nil {
			t.Error(err)
		}
		s.hides(t, "printed", string(text))
	})
}

// heldIsLocal: where the provider only hands the key over, it may be away afterwards.
func (s *remoteSuite) heldIsLocal(t *testing.T) {
	k := open(t, s.must(s.h.Open))
	s.p.set(cutConnection)
	defer s.p.set(nil)
	m := material.Random(32)
	out, err := k.Unwrap(t.Context(), wrap(t, k, m), binding)
	if calls, _ := s.p.seen(); err != nil || !out.Equal(m) || calls != 0 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// only returns a fault for the first call; the later ones pass.
func only(fault func(*call)) func(*call) {
	return func(c *call) {
		if c.number == 1 {
			fault(c)
			return
		}
		pass(c)
	}
}

func (s *remoteSuite) throttled(t *testing.T) {
	throttle := func(c *call) { s.h.Throttle(c.w, remoteCanary) }
	s.under(t, "always throttled", throttle, api.CodeBusy, api.CodeUnavailable)
	s.under(t, "throttled once", only(throttle), "")
}

func (s *remoteSuite) denied(t *testing.T) {
	s.under(t, "denied", func(c *call) { s.h.Deny(c.w, remoteCanary) }, api.CodeDenied)
}

func (s *remoteSuite) failing(t *testing.T) {
	for _, status := range []int{500, 502, 503} {
		fail := func(c *call) { http.Error(c.w, remoteCanary, status) }
		s.under(t, http.StatusText(status), fail, api.CodeUnavailable)
		s.under(t, http.StatusText(status)+" once", only(fail), "")
	}
}

func (s *remoteSuite) neverAnswered(t *testing.T) {
	asked := make(chan struct{}, 100)
	silent := func(c *call) {
		asked <- struct{}{}
		select {
		case <-c.r.Context().Done():
		case <-c.gone:
		}
	}
	s.limit = brief
	s.under(t, "never answered: the driver's own limit", silent, api.CodeUnavailable)
	s.limit = patient
	for _, op := range s.operations(t) {
		s.p.set(silent)
		soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		s.judge(t, op.name+", never answered: the caller's deadline", op.run(soon), api.CodeUnavailable)
		cancel()
		for len(asked) > 0 {
			<-asked
		}
		gone, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		s.judge(t, op.name+", never answered: the caller went away", op.run(gone), api.CodeCancelled)
		cancel()
		s.p.set(nil)
	}
}

// slow: an answer that is late, and comes in pieces, is still one.
func (s *remoteSuite) slow(t *testing.T) {
	s.under(t, "slow", func(c *call) {
		a := c.answer()
		for name, values := range a.header {
			c.w.Header()[name] = values
		}
		late := time.NewTicker(50 * time.Millisecond)
		defer late.Stop()
		<-late.C
		c.w.WriteHeader(a.status)
		for piece := range slices.Chunk(a.body, len(a.body)/3+1) {
			<-late.C
			_, _ = c.w.Write(piece)
			_ = http.NewResponseController(c.w).Flush()
		}
	}, "")
}

// cutConnection closes it without a word.
func cutConnection(c *call) {
	if conn, _, err := http.NewResponseController(c.w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func (s *remoteSuite) cutOff(t *testing.T) {
	s.under(t, "cut off", cutConnection, api.CodeUnavailable)
	s.under(t, "cut off once", only(cutConnection), "")
}

// half: of an answer, the rest of which is lost (the length says so) or was never there (the length is that of the half).
func (s *remoteSuite) half(t *testing.T) {
	for _, part := range []func(body []byte) []byte{
		func([]byte) []byte { return nil }, func(b []byte) []byte { return b[:1] }, func(b []byte) []byte { return b[:len(b)/2] }, func(b []byte) []byte { return b[:len(b)-1] },
	} {
		s.under(t, "an answer cut short", func(c *call) {
			a := c.answer()
			a.body = part(bytes.TrimSpace(a.body))
			a.write(c.w)
		}, api.CodeUnavailable, api.CodeIntegrity)
		s.under(t, "an answer lost halfway", func(c *call) {
			a := c.answer()
			conn, _, err := http.NewResponseController(c.w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			head := &http.Response{StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Header: a.header, ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(part(a.body)))}
			_ = head.Write(conn)
		}, api.CodeUnavailable, api.CodeIntegrity)
	}
}

func (s *remoteSuite) garbage(t *testing.T) {
	for _, text := range []string{"null", "{}", "[]", "0", `"` + remoteCanary + `"`, "<html>" + remoteCanary + "</html>", "\x00\xff\xfe" + remoteCanary,
		`{"` + remoteCanary + `":{}}`, strings.Repeat("[", 100_000), strings.Repeat(`{"data":`, 20_000)} {
		s.under(t, "garbage beginning with "+text[:1], func(c *call) {
			c.w.Header().Set("Content-Type", c.answer().header.Get("Content-Type"))
			_, _ = io.WriteString(c.w, text)
		}, api.CodeUnavailable, api.CodeIntegrity)
	}
}

// endless: an answer that doesn't end is not read to its end.
func (s *remoteSuite) endless(t *testing.T) {
	const enough = 16 << 20 // far more than the sockets between the two hold
	s.under(t, "an endless answer", func(c *call) {
		piece := bytes.Repeat([]byte("a"), 64<<10)
		_, _ = io.WriteString(c.w, `{"a":"`)
		for sent := 0; ; sent += len(piece) {
			if sent > enough {
				t.Errorf("%d bytes of an answer were read", sent)
				return
			}
			if _, err := c.w.Write(piece); err != nil {
				return
			}
		}
	}, api.CodeUnavailable, api.CodeIntegrity)
}

// redirected: the credential stays with the service that was configured.
func (s *remoteSuite) redirected(t *testing.T) {
	trap := startProxy(t, s.h.Server)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s.under(t, http.StatusText(status), func(c *call) {
			c.w.Header().Set("Location", trap.URL+c.r.URL.RequestURI())
			c.w.WriteHeader(status)
		}, api.CodeUnavailable, api.CodeIntegrity)
	}
	if calls, _ := trap.seen(); calls != 0 {
		t.Errorf("%d redirects were followed", calls)
	}
}

// wrongKey: what the service answers for another key is taken for this one's nowhere.
func (s *remoteSuite) wrongKey(t *testing.T) {
	k, other := open(t, s.must(s.h.Open)), open(t, s.must(s.h.Other))
	m := material.Random(32)
	blob, others := wrap(t, k, m), wrap(t, other, material.Random(32))
	s.replays(t, func() error {
		again, err := s.h.Other(t.Context(), t, s.p.URL, s.limit)
		if err == nil {
			err = again.Close()
		}
		return err
	})
	opened, err := s.h.Open(t.Context(), t, s.p.URL, s.limit)
	s.p.set(nil)
	if err != nil {
		s.judge(t, "opening, answered for another key", err, api.CodeIntegrity, api.CodeUnavailable)
	} else {
		if opened.ID() == k.ID() {
			t.Error("opening, answered for another key: it has the fingerprint of the right one")
		}
		_ = opened.Close()
	}
	if k.Kind() != keyring.Wraps {
		return
	}
	s.replays(t, func() error { _, err := other.Unwrap(t.Context(), others, binding); return err })
	refuses(t, "answered for another key", k, blob, binding)
	s.replays(t, func() error { _, err := other.Wrap(t.Context(), m, binding); return err })
	made, err := k.Wrap(t.Context(), m, binding)
	s.p.set(nil)
	if err != nil {
		s.judge(t, "wrapping, answered for another key", err, api.CodeIntegrity)
	} else {
		refuses(t, "wrapped, answered for another key", k, made, binding)
	}
	another := material.Random(32) // and for another plaintext, of the same key
	of := wrap(t, k, another)
	s.replays(t, func() error { _, err := k.Unwrap(t.Context(), of, binding); return err })
	refuses(t, "answered for another plaintext", k, blob, binding)
	s.p.set(nil)
}

// replays has f ask the service, and its answers, in order, be the answers to what is asked next.
func (s *remoteSuite) replays(t *testing.T, f func() error) {
	t.Helper()
	s.p.set(nil)
	if err := f(); err != nil {
		t.Fatal(err)
	}
	_, answers := s.p.seen()
	if len(answers) == 0 {
		t.Fatal("the service wasn't asked")
	}
	s.p.set(func(c *call) { answers[min(c.number, len(answers))-1].write(c.w) })
}

func (s *remoteSuite) nobodyThere(t *testing.T) {
	away := startProxy(t, s.h.Server)
	away.Close()
	_, err := s.h.Open(t.Context(), t, away.URL, s.limit)
	s.judge(t, "opening", err, api.CodeUnavailable)
}

// unknownCertificate: there is no going on without a verified peer.
func (s *remoteSuite) unknownCertificate(t *testing.T) {
	p := newProxy(t, s.h.Server)
	p.StartTLS()
	_, err := s.h.Open(t.Context(), t, p.URL, s.limit)
	s.judge(t, "opening", err, api.CodeUnavailable)
	if calls, _ := p.seen(); calls != 0 {
		t.Errorf("%d calls were made to who knows whom", calls)
	}
}

// sent: only the headers that the driver is meant to send were seen, none of whoever asked keyturn; nothing secret stood
// in a URL.
func (s *remoteSuite) sent(t *testing.T) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	known := map[string]bool{"Accept": true, "Accept-Encoding": true, "Content-Length": true, "Content-Type": true, "User-Agent": true}
	for _, name := range s.h.Headers {
		known[http.CanonicalHeaderKey(name)] = true
	}
	for name := range s.p.headers {
		if !known[name] {
			t.Errorf("sent a header %s", name)
		}
	}
	if len(s.p.queries) == 0 {
		t.Error("nothing was sent")
	}
	s.hides(t, "URLs", strings.Join(s.p.queries, " "))
}
