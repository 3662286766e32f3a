package gate

import (
	"context"
	"runtime"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// Intent is what somebody is about to do: what the decision is made on and what the event will say.
type Intent struct {
	Action   access.Action   // what must be allowed
	Type     audit.EventType // the kind of event when it is
	Verb     string          // Event.Action: "encrypt", "rotated", …
	Resource access.Resource // to what
	Reason   string          // the caller's words, at most MaxReason bytes
}

// MaxReason is how long a reason may be, in bytes.
const MaxReason = 1024

// limits of what an event takes over from a request, in bytes.
const (
	maxRequestID = 128
	maxField     = 128
)

// Use decides, runs, records, and returns when the record is durable. run may fill in the event's KeyVersion, Details
// and Reason; the event is its own only while it runs. What run returns is recorded and returned.
//
// When Use returns an error, whatever run produced must not leave the process: unavailable says that it could not be
// recorded. A denial is recorded and returned as denied. A context that ends while run works is run's business; the
// record is written all the same. run must not call the gate's Change.
//
// Where several processes share the store run MAY RUN MORE THAN ONCE: when a key that it rests on (RestsOn) was changed by
// another before the record was durable. Each time it gets a fresh event; what it produced before counts for nothing, so
// it assigns its results from scratch.
func (g *Gate) Use(ctx context.Context, c *access.Caller, in Intent, run func(context.Context, *audit.Event) error) error {
	if err := g.enter(ctx, in); err != nil {
		return err
	}
	r := records.Get().(*record)
	defer r.release()
	g.describe(&r.ev, c, in)
	if denied := decide(&r.ev, c, in); denied != nil {
		return g.conclude(r, denied)
	}
	if !g.shared {
		return g.conclude(r, g.guard(in.Verb, func() error { return run(ctx, &r.ev) }))
	}
	return g.useShared(context.WithValue(ctx, underPremises{}, r), r, in.Verb, run)
}

// useShared does the work until its premises hold at the moment of its record's commit.
func (g *Gate) useShared(ctx context.Context, r *record, verb string, run func(context.Context, *audit.Event) error) error {
	before := r.ev
	for range maxRuns {
		err := g.conclude(r, g.guard(verb, func() error { return run(ctx, &r.ev) }))
		if err != errOutdated {
			return err
		}
		r.ev, r.premises = before, r.premises[:0]
		r.ev.Time = g.now()
	}
	return g.conclude(r, errKeepsChanging)
}

// Record writes an event that no Use or Change stands behind, such as a failed sign-in, and returns when it is durable.
// A zero Time becomes now; process and environment are filled in. The event is not kept.
func (g *Gate) Record(ctx context.Context, ev *audit.Event) error {
	if err := g.enter(ctx, Intent{}); err != nil {
		return err
	}
	r := records.Get().(*record)
	defer r.release()
	r.ev = *ev
	if r.ev.Time.IsZero() {
		r.ev.Time = g.now()
	}
	r.ev.ProcessID, r.ev.Environment = g.pid, g.cfg.Environment
	return g.submit(r)
}

// enter refuses what would have to be refused in the end, before any work is done.
func (g *Gate) enter(ctx context.Context, in Intent) error {
	if f := g.stopped.Load(); f != nil {
		return f
	}
	if len(in.Reason) > MaxReason {
		return fault.Newf(api.CodeInvalid, "the reason is longer than %d bytes", MaxReason).WithField("reason")
	}
	if ctx.Value(insideChange{}) != nil {
		return fault.New(api.CodeInternal, "recording an operation inside a change: it would wait for itself")
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap("", context.Cause(ctx), "nothing was done")
	}
	return nil
}

// insideChange marks the context of a Change's function.
type insideChange struct{}

// describe fills in who, what and when.
func (g *Gate) describe(ev *audit.Event, c *access.Caller, in Intent) {
	*ev = audit.Event{
		Time: g.now(), Type: in.Type, Action: in.Verb, UserID: anonymous, Resource: in.Resource.String(), Reason: in.Reason,
		ProcessID: g.pid, Environment: g.cfg.Environment,
	}
	if c == nil {
		return
	}
	c.MarkRecorded()
	ev.RequestID, ev.SourceIP, ev.Details.Method = cut(c.RequestID, maxRequestID), c.SourceIP, c.Method
	if c.Principal != nil {
		ev.UserID, ev.Role = c.Principal.Name, c.Principal.Role
	}
}

// anonymous is the user_id of events of nobody known.
const anonymous = "anonymous"

// decide asks access. A denial changes the event into one of a denial and comes back as the error to return.
func decide(ev *audit.Event, c *access.Caller, in Intent) error {
	var p *access.Principal
	if c != nil {
		p = c.Principal
	}
	d := access.Decide(p, in.Action, in.Resource)
	if d.Allowed {
		return nil
	}
	ev.Type, ev.Reason = audit.PermissionDenied, d.Why
	return fault.Newf(api.CodeDenied, "%s on %s is not allowed: %s", in.Action, in.Resource.Kind, d.Why).
		WithNext("ask an owner for a role or a scope that has it")
}

// conclude records how it went and returns when that is durable: err as it is, or unavailable.
func (g *Gate) conclude(r *record, err error) error {
	outcome(&r.ev, err)
	if lost := g.submit(r); lost != nil {
		return lost
	}
	return err
}

// outcome writes success or the failure's code and field into the event: never its text.
func outcome(ev *audit.Event, err error) {
	ev.Success = err == nil
	if err != nil {
		ev.Details.Code, ev.Details.Field = string(fault.CodeOf(err)), cut(fault.FieldOf(err), maxField)
	}
}

// guard runs the work and turns a panic into an internal error: one request fails, and it is recorded. The panic's value
// is dropped, because it may quote what the work was about; the places of the code are logged.
func (g *Gate) guard(verb string, work func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			g.cfg.Log.Error("a panic was caught", "during", verb, "at", places())
			err = fault.Newf(api.CodeInternal, "a programming error was met during %s", verb).WithNext("report it with the server's log")
		}
	}()
	return work()
}

// places lists the functions and lines that led to a panic, without arguments.
func places() []string {
	var pcs [24]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs[:])])
	var out []string
	for {
		f, more := frames.Next()
		out = append(out, f.Function)
		if !more {
			return out
		}
	}
}

func cut(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

// record is an event on its way into the log, with its line. Pooled: the event's owner is whoever got it.
type record struct {
	ev       audit.Event
	line     []byte
	leaf     audit.Hash
	premises []audit.Premise // what the operation rests on; empty where nobody else can change the store
	outdated bool            // set by the leader: a premise has fallen and the event was not written
}

var records = sync.Pool{New: func() any { return new(record) }}

// keepLine is how large a line buffer may be to go back into the pool.
const keepLine = 16 << 10

func (r *record) release() {
	r.ev, r.premises = audit.Event{}, r.premises[:0]
	if cap(r.line) <= keepLine {
		records.Put(r)
	}
}
