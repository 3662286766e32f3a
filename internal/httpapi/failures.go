package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
)

// Recorder writes an event to the audit log and returns when it is durable. The doorway (package gate) is one.
type Recorder interface {
	Record(ctx context.Context, ev *audit.Event) error
}

// A refused sign-in is one event, up to failureRate a second; above that they are counted, and the next event carries
// the count as details.items. So nobody without a credential can fill the disk, or make known callers wait for the log.
const (
	failureRate  = 20
	failureBurst = 100
)

// failures records what happens before any service is called. Safe for concurrent use.
type failures struct {
	to    Recorder
	clock func() time.Time

	mu     sync.Mutex
	budget float64   // events that may be written now; guarded by mu
	filled time.Time // when budget was last topped up; guarded by mu
	held   uint64    // refused sign-ins not yet in any event; guarded by mu
}

func newFailures(to Recorder, clock func() time.Time) *failures {
	return &failures{to: to, clock: clock, budget: failureBurst, filled: clock()}
}

// record keeps a refused sign-in, with the code of the refusal. It returns when the event is durable, or at once when the refusal was only counted.
func (f *failures) record(ctx context.Context, c *access.Caller, code api.Code) error {
	count, ok := f.take()
	if !ok {
		return nil
	}
	ev := &audit.Event{
		Type: audit.AuthFailure, Action: "refused", UserID: "anonymous", Resource: access.KindSystem,
		RequestID: c.RequestID, SourceIP: c.SourceIP,
		Details: audit.Details{Source: "api", Code: string(code)},
	}
	if count > 1 {
		ev.Details.Items = count
	}
	err := f.to.Record(ctx, ev)
	if err != nil {
		f.giveBack(count)
	}
	return err
}

// take asks for the right to write one event and says how many refusals it stands for.
func (f *failures) take() (count uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock()
	f.budget = min(failureBurst, f.budget+max(0, now.Sub(f.filled).Seconds())*failureRate)
	f.filled = now
	f.held++
	if f.budget < 1 {
		return 0, false
	}
	f.budget--
	count, f.held = f.held, 0
	return count, true
}

func (f *failures) giveBack(count uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held += count
}

// flush writes what was only counted, when the server stops.
func (f *failures) flush(ctx context.Context) error {
	f.mu.Lock()
	count := f.held
	f.held = 0
	f.mu.Unlock()
	if count == 0 {
		return nil
	}
	return f.to.Record(ctx, &audit.Event{Type: audit.AuthFailure, Action: "refused", UserID: "anonymous", Resource: access.KindSystem,
		Details: audit.Details{Source: "api", Code: string(api.CodeUnauthenticated), Items: count}})
}

// panicked records that a handler panicked. The request's own context may be gone, so it gets a fresh one.
func (f *failures) panicked(x *exchange) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), 5*time.Second)
	defer cancel()
	ev := &audit.Event{Type: audit.System, Action: "panicked", UserID: "system", Resource: access.KindSystem,
		RequestID: x.caller.RequestID, SourceIP: x.caller.SourceIP, Details: audit.Details{Source: "api", Code: string(api.CodeInternal)}}
	if p := x.caller.Principal; p != nil {
		ev.UserID, ev.Role = p.Name, p.Role
	}
	if err := f.to.Record(ctx, ev); err != nil {
		x.api.log.Error("a panic could not be recorded", "request", x.caller.RequestID, "code", string(api.CodeUnavailable))
	}
}

// Close writes what is still only counted. Call it after the last listener has stopped and before the doorway closes.
func (a *API) Close(ctx context.Context) error { return a.failures.flush(ctx) }
