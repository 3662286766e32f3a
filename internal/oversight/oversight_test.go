package oversight

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
)

// house is a real store with a real doorway, a runner that obeys the test, and a clock that the test moves.
type house struct {
	st   store.Store
	gate *gate.Gate
	jobs *Jobs
	log  *Log
	work int // calls of Work
	told []string

	mu      sync.Mutex
	now     time.Time
	updates chan jobs.Job // what Wait reports; closed when the job has settled
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "k.db"), sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	secret, public, err := audit.GenerateKey(rand.Reader, st.ID())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := audit.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(public)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{st: st, now: time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC), updates: make(chan jobs.Job)}
	if h.gate, err = gate.New(gate.Config{Key: key, Clock: h.clock, CheckpointEvery: -1}, st, signer); err != nil {
		t.Fatal(err)
	}
	if err := h.gate.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.gate.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	h.jobs = NewJobs(JobsConfig{Gate: h.gate, Store: st, Runner: h, Work: func() { h.work++ }, Clock: h.clock, Counts: func(jobs.Job) *api.DatasetRun { return nil }, Needs: h.needs, MayRetry: h.mayRetry, Steered: h.steered})
	h.log = NewLog(LogConfig{Gate: h.gate, Store: st, Clock: h.clock, PublicKey: public})
	return h
}

// needs is what the jobs of these tests ask of who has their work done.
func (h *house) needs(_ context.Context, j jobs.Job) ([]access.Right, error) {
	x := access.Resource{Kind: access.KindDataset, Name: "x"}
	return map[string][]access.Right{
		"test":    {{Action: access.DatasetRun, Resource: x}},
		"once":    {{Action: access.DatasetRun, Resource: x}},
		"decrypt": {{Action: access.DatasetRun, Resource: x}, {Action: access.DatasetDecrypt, Resource: x}},
	}[j.Kind], nil
}

// mayRetry refuses the kind "once".
func (h *house) mayRetry(j jobs.Job) error {
	if j.Kind == "once" {
		return fault.New(api.CodeWrongState, "what it needs is gone")
	}
	return nil
}

// steered notes what is told of wishes that changed something.
func (h *house) steered(_ context.Context, _ store.Tx, c *access.Caller, j jobs.Job, verb string) error {
	h.told = append(h.told, c.Principal.Name+" "+verb+" "+j.ID)
	return nil
}

// The runner: every wish is granted.

func (h *house) wish(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	return tx.SetControl(ctx, id, jobs.Pause)
}

func (h *house) Pause(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	return h.wish(ctx, tx, id)
}

func (h *house) Resume(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	return h.wish(ctx, tx, id)
}

func (h *house) Cancel(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	return h.wish(ctx, tx, id)
}

func (h *house) Retry(ctx context.Context, tx store.Tx, id string) (jobs.Job, error) {
	return h.wish(ctx, tx, id)
}

func (h *house) Wait(ctx context.Context, _ string, report func(jobs.Job)) (last jobs.Job, err error) {
	for {
		select {
		case j, ok := <-h.updates:
			if !ok {
				return last, nil
			}
			last = j
			report(j)
		case <-ctx.Done():
			return last, fault.Wrap(api.CodeCancelled, context.Cause(ctx), "waiting")
		}
	}
}

// job puts a job into the store.
func (h *house) job(t *testing.T) jobs.Job {
	t.Helper()
	return h.jobOf(t, "test")
}

func (h *house) jobOf(t *testing.T, kind string) jobs.Job {
	t.Helper()
	id, err := jobs.NewID(h.clock(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	j, err := jobs.New(id, jobs.Job{Kind: kind, Subject: "dataset/x", Args: []byte("{}"), Actor: "owner"}, h.clock())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.st.Change(t.Context(), func(tx store.Tx) error { _, _, err := tx.InsertJob(t.Context(), j); return err }); err != nil {
		t.Fatal(err)
	}
	return j
}

// principal puts a principal into the store and gives it as a caller.
func (h *house) principal(t *testing.T, name, role string, scope ...string) *access.Caller {
	t.Helper()
	p := access.Principal{ID: name + "-id", Name: name, Role: role, Scope: scope, Created: h.clock()}
	if err := h.st.Change(t.Context(), func(tx store.Tx) error { return tx.CreatePrincipal(t.Context(), p) }); err != nil {
		t.Fatal(err)
	}
	return &access.Caller{Principal: &p, Method: "token", RequestID: name}
}

func (h *house) disable(t *testing.T, name string) {
	t.Helper()
	err := h.st.Change(t.Context(), func(tx store.Tx) error {
		p, err := tx.PrincipalByName(t.Context(), name)
		if err != nil {
			return err
		}
		p.Disabled = true
		return tx.UpdatePrincipal(t.Context(), p)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestJobsAreSeenInScopeOnly(t *testing.T) {
	h := newHouse(t)
	mine, other := h.job(t), h.job(t)
	all, some := h.principal(t, "all", "auditor", "*"), h.principal(t, "some", "auditor", "job/"+mine.ID)
	none := h.principal(t, "none", "application", "*")
	for _, c := range []struct {
		who  *access.Caller
		want int
	}{{all, 2}, {some, 1}} {
		list, err := h.jobs.List(t.Context(), c.who, "queued", "", 0)
		if err != nil || len(list.Jobs) != c.want {
			t.Errorf("%s: %d jobs, %v", c.who.Principal.Name, len(list.Jobs), err)
		}
	}
	if _, err := h.jobs.List(t.Context(), none, "", "", 0); fault.CodeOf(err) != api.CodeDenied {
		t.Errorf("without the right: %v", err)
	}
	if got, err := h.jobs.Show(t.Context(), some, mine.ID); err != nil || got.ID != mine.ID || got.State != "queued" || got.Started != nil {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := h.jobs.Show(t.Context(), some, other.ID); fault.CodeOf(err) != api.CodeDenied || got.ID != "" {
		t.Errorf("out of scope: %+v %v", got, err)
	}
	for _, id := range []string{"", "x", strings.Repeat("z", jobs.IDLength), "../" + mine.ID[3:]} {
		if _, err := h.jobs.Show(t.Context(), all, id); fault.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := h.jobs.List(t.Context(), all, "finished", "", 0); fault.FieldOf(err) != "state" {
		t.Errorf("an unknown state: %v", err)
	}
	if _, err := h.jobs.List(t.Context(), all, "", "%", 0); fault.FieldOf(err) != "after" {
		t.Errorf("an odd cursor: %v", err)
	}
}

func TestJobPages(t *testing.T) {
	h := newHouse(t)
	all := h.principal(t, "all", "auditor", "*")
	for range 5 {
		h.job(t)
		h.pass(time.Second)
	}
	seen := map[string]bool{}
	after := ""
	for page := 0; ; page++ {
		list, err := h.jobs.List(t.Context(), all, "", after, 2)
		if err != nil || page > 3 {
			t.Fatal(page, err)
		}
		for _, j := range list.Jobs {
			if seen[j.ID] {
				t.Errorf("%s twice", j.ID)
			}
			seen[j.ID] = true
		}
		if after = list.Next; after == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d jobs", len(seen))
	}
}

// A wish is decided, done and recorded in one, and gets the work going in this process.
func TestSteering(t *testing.T) {
	h := newHouse(t)
	j := h.job(t)
	admin, reader := h.principal(t, "admin2", "key-administrator", "*"), h.principal(t, "reader", "auditor", "*")
	for verb, f := range map[string]func(context.Context, *access.Caller, string) (api.Job, error){
		"paused": h.jobs.Pause, "resumed": h.jobs.Resume, "cancelled": h.jobs.Cancel, "retried": h.jobs.Retry,
	} {
		before := h.work
		if _, err := f(t.Context(), reader, j.ID); fault.CodeOf(err) != api.CodeDenied || h.work != before {
			t.Errorf("%s by a reader: %v", verb, err)
		}
		if got, err := f(t.Context(), admin, j.ID); err != nil || got.ID != j.ID || h.work != before+1 {
			t.Errorf("%s: %+v %v", verb, got, err)
		}
		if n := h.events(t, gate.Filter{User: "admin2"}, verb); n != 1 {
			t.Errorf("%s: %d events", verb, n)
		}
	}
	if len(h.told) != 1 { // the runner of this test pauses every time, so the first wish alone changed something
		t.Errorf("told of %q", h.told)
	}
}

// To wake a job is to have its work done: who steers jobs but may not start this work is denied, on record, and may still
// stop it. Work of a kind that nobody knows is nobody's.
func TestSteeringIsNoWayToDoTheWork(t *testing.T) {
	h := newHouse(t)
	admin, owner := h.principal(t, "admin2", "key-administrator", "*"), h.principal(t, "owner2", "owner", "*")
	for _, c := range []struct {
		kind      string
		who       *access.Caller
		want      api.Code
		afterStop int // denials recorded for who, so far
	}{
		{"test", admin, "", 0}, {"decrypt", admin, api.CodeDenied, 2}, {"decrypt", owner, "", 0}, {"unheard-of", owner, api.CodeDenied, 2},
	} {
		j := h.jobOf(t, c.kind)
		for verb, f := range map[string]func(context.Context, *access.Caller, string) (api.Job, error){"resumed": h.jobs.Resume, "retried": h.jobs.Retry} {
			before := h.work
			_, err := f(t.Context(), c.who, j.ID)
			if code := fault.CodeOf(err); c.want != "" && (code != c.want || h.work != before) || c.want == "" && err != nil {
				t.Errorf("%s job %s by %s: %v", c.kind, verb, c.who.Principal.Name, err)
			}
		}
		n := 0
		f := gate.Filter{User: c.who.Principal.Name, Type: audit.PermissionDenied}
		if err := h.gate.Query(t.Context(), f, func([]byte) error { n++; return nil }); err != nil || n != c.afterStop {
			t.Errorf("%s job by %s: %d denials on record, want %d (%v)", c.kind, c.who.Principal.Name, n, c.afterStop, err)
		}
		if _, err := h.jobs.Cancel(t.Context(), c.who, j.ID); err != nil {
			t.Errorf("%s job cancelled by %s: %v", c.kind, c.who.Principal.Name, err)
		}
	}
}

// What answers an incident is stopped by who may answer incidents: whoever stole a key could else stop the work that moves what
// it protects.
func TestUrgentJobsAreNotStoppedByAnybody(t *testing.T) {
	h := newHouse(t)
	steers, answers := h.principal(t, "steers", "key-administrator", "job/*"), h.principal(t, "answers", "key-administrator", "job/*", "incident/*")
	for verb, f := range map[string]func(context.Context, *access.Caller, string) (api.Job, error){"paused": h.jobs.Pause, "cancelled": h.jobs.Cancel} {
		j := h.job(t)
		if _, err := f(t.Context(), steers, j.ID); err != nil {
			t.Errorf("%s: a job like any other: %v", verb, err)
		}
		urgent := h.job(t)
		err := h.st.Change(t.Context(), func(tx store.Tx) error {
			_, err := tx.SetPriority(t.Context(), urgent.ID, jobs.PriorityUrgent)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f(t.Context(), steers, urgent.ID); fault.CodeOf(err) != api.CodeDenied {
			t.Errorf("%s: an urgent one: %v", verb, err)
		}
		if n := h.events(t, gate.Filter{User: "steers", Type: audit.PermissionDenied}, verb); n != 1 {
			t.Errorf("%s: %d denials on record", verb, n)
		}
		if _, err := f(t.Context(), answers, urgent.ID); err != nil {
			t.Errorf("%s by who answers incidents: %v", verb, err)
		}
	}
}

// A job that can't be taken up again is refused on record, and nothing of it changes.
func TestRetryOfWhatCanNotBe(t *testing.T) {
	h := newHouse(t)
	owner := h.principal(t, "owner2", "owner", "*")
	j := h.jobOf(t, "once")
	work := h.work
	if _, err := h.jobs.Retry(t.Context(), owner, j.ID); fault.CodeOf(err) != api.CodeWrongState || h.work != work {
		t.Errorf("retried: %v", err)
	}
	if after, err := h.jobs.read(t.Context(), j.ID); err != nil || !reflect.DeepEqual(after, j) {
		t.Errorf("it was\n%+v, and is\n%+v (%v)", j, after, err)
	}
	if n := h.events(t, gate.Filter{User: "owner2"}, "retried"); n != 1 {
		t.Errorf("%d events", n)
	}
	if _, err := h.jobs.Resume(t.Context(), owner, j.ID); err != nil {
		t.Errorf("resumed: %v", err)
	}
}

// events counts the events of a filter with this action.
func (h *house) events(t *testing.T, f gate.Filter, action string) (n int) {
	t.Helper()
	err := h.gate.Query(t.Context(), f, func(line []byte) error {
		if bytes.Contains(line, []byte(`"action":"`+action+`"`)) {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Row 81: a stream looks at the right again while it goes on: whoever was disabled stops receiving.
func TestAdvisory_CVE_2025_64751_streams(t *testing.T) {
	h := newHouse(t)
	j := h.job(t)
	c := h.principal(t, "eve", "auditor", "*")
	seen := make(chan api.Job, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- h.jobs.Watch(t.Context(), c, j.ID, func(j api.Job) error { seen <- j; return nil })
	}()
	h.updates <- jobs.Job{ID: j.ID, Done: 1}
	<-seen
	h.disable(t, "eve")
	h.updates <- jobs.Job{ID: j.ID, Done: 2} // within recheckEvery
	<-seen
	h.pass(recheckEvery)
	h.updates <- jobs.Job{ID: j.ID, Done: 3}
	if err := <-ended; fault.CodeOf(err) != api.CodeDenied || len(seen) != 0 {
		t.Errorf("%v, %d more", err, len(seen))
	}

	f := h.principal(t, "frank", "auditor", "*")
	lines := make(chan string, 100)
	go func() {
		ended <- h.log.Tail(t.Context(), f, gate.Filter{User: "x"}, true, writerTo(lines), func() error { lines <- "flush"; return nil })
	}()
	<-lines
	h.disable(t, "frank")
	h.pass(2 * recheckEvery)
	for { // the follower may not follow yet
		if err := h.gate.Record(t.Context(), &audit.Event{Type: audit.System, Action: "y", UserID: "x", Resource: "system"}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if fault.CodeOf(err) != api.CodeDenied {
				t.Error(err)
			}
			for len(lines) > 0 {
				if line := <-lines; line != "flush" {
					t.Errorf("he still received %s", line)
				}
			}
			return
		default:
		}
	}
}

type writerTo chan string

func (w writerTo) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// Tail shows every event once, also those that come while it changes from looking back to following.
func TestTailMissesNothing(t *testing.T) {
	h := newHouse(t)
	c := h.principal(t, "eve", "auditor", "*")
	const total = 300
	go func() {
		for i := range total {
			if err := h.gate.Record(context.Background(), &audit.Event{Type: audit.System, Action: fmt.Sprint("n", i), UserID: "x", Resource: "system"}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	lines := make(chan string, 2*total)
	following, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- h.log.Tail(following, c, gate.Filter{User: "x", Limit: 1000}, true, writerTo(lines), func() error { return nil })
	}()
	for i := range total {
		if line := <-lines; !strings.Contains(line, fmt.Sprintf(`"action":"n%d"`, i)) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
	stop()
	if err := <-ended; err != nil || len(lines) != 0 {
		t.Errorf("%v, %d lines more", err, len(lines))
	}
}

func TestLog(t *testing.T) {
	h := newHouse(t)
	auditor, app := h.principal(t, "eve", "auditor", "*"), h.principal(t, "app", "application", "*")
	for i := range 30 {
		if err := h.gate.Record(t.Context(), &audit.Event{Type: audit.System, Action: fmt.Sprint("n", i), UserID: "x", Resource: "system"}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := h.log.Tail(t.Context(), auditor, gate.Filter{User: "x"}, false, &out, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != DefaultTail || !strings.Contains(lines[0], `"n10"`) || !strings.Contains(lines[19], `"n29"`) {
		t.Errorf("%d lines, the first %s", len(lines), lines[0])
	}
	check, err := h.log.Verify(t.Context(), auditor)
	if err != nil || !check.OK || check.Events < 31 || len(check.Shards) != 1 {
		t.Errorf("%+v %v", check, err)
	}
	signed, err := h.log.Checkpoint(t.Context(), auditor)
	if err != nil || signed.PublicKey == "" || !strings.Contains(signed.Note, "checkpoint") || signed.Shards[0].Size < check.Events {
		t.Errorf("%+v %v", signed, err)
	}
	out.Reset()
	if err := h.log.Export(t.Context(), auditor, &out); err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(signed.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := audit.Verify(bytes.NewReader(out.Bytes()), key, nil); err != nil || !report.OK() {
		t.Errorf("the export: %+v %v", report, err)
	}
	if err := h.log.Query(t.Context(), auditor, gate.Filter{Type: "nonsense"}, &out); fault.FieldOf(err) != "type" {
		t.Errorf("an unknown type: %v", err)
	}
	out.Reset()
	for name, call := range map[string]func() error{
		"query":  func() error { return h.log.Query(t.Context(), app, gate.Filter{}, &out) },
		"export": func() error { return h.log.Export(t.Context(), app, &out) },
		"tail": func() error {
			return h.log.Tail(t.Context(), app, gate.Filter{}, true, &out, func() error { return nil })
		},
		"verify":     func() error { _, err := h.log.Verify(t.Context(), app); return err },
		"checkpoint": func() error { _, err := h.log.Checkpoint(t.Context(), app); return err },
	} {
		if err := call(); fault.CodeOf(err) != api.CodeDenied || out.Len() > 0 {
			t.Errorf("%s by a program: %v, %d bytes", name, err, out.Len())
		}
	}
}

// A job that waits says until when.
func TestNextAttemptIsShown(t *testing.T) {
	h := newHouse(t)
	all := h.principal(t, "all", "auditor", "*")
	j := h.job(t)
	if got, err := h.jobs.Show(t.Context(), all, j.ID); err != nil || got.NextAttempt != nil {
		t.Errorf("a job that waits for nothing: %+v %v", got, err)
	}
	j.NextAttempt, j.Attempts = h.clock().Add(time.Minute), 1
	if err := h.st.Change(t.Context(), func(tx store.Tx) error { _, err := tx.Save(t.Context(), j); return err }); err != nil {
		t.Fatal(err)
	}
	list, err := h.jobs.List(t.Context(), all, "", "", 0)
	if err != nil || len(list.Jobs) != 1 || list.Jobs[0].NextAttempt == nil || !list.Jobs[0].NextAttempt.Equal(j.NextAttempt) {
		t.Errorf("%+v %v", list, err)
	}
}
