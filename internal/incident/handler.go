package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/kms"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// The kinds of an incident's job.
const (
	KindEmergency = "emergency-rotate" // of an emergency: rotates, queues, finds out
	KindScope     = "incident-scope"   // of an incident that changes no key: finds out
)

// args is what a job of an incident was asked to do: what the incident says.
type args struct {
	Incident string `json:"incident"`
}

// The phases of a job, in their order.
const (
	phaseAlert    = ""         // the alert's event
	phaseRotate   = "rotate"   // one step for each key
	phaseDatasets = "datasets" // one step for each dataset
	phaseUses     = "uses"     // who could and who did, by key
	phaseEnd      = "end"
)

// cursor is where a job stands; it is saved in the transaction of each step. What isn't saved yet when the process is killed
// is done once more, and is found to be done already or changes nothing.
type cursor struct {
	Phase   string    `json:"phase"`
	Next    int       `json:"next,omitempty"`    // rotate: of the targets; uses: of the keys
	After   string    `json:"after,omitempty"`   // datasets: the name of the last one that is done
	Failed  int64     `json:"failed,omitempty"`  // keys on the list of failures
	Ended   bool      `json:"ended,omitempty"`   // the job ended with failures: a retry begins anew
	Changed int64     `json:"changed,omitempty"` // keys that this job changed
	Queued  int64     `json:"queued,omitempty"`  // datasets
	Use     useCursor `json:"use"`
}

// Handlers are the job handlers, for the server's table.
func (s *Service) Handlers() []runner.Handler {
	return []runner.Handler{handler{s, KindEmergency}, handler{s, KindScope}}
}

// handler works on jobs of one kind; both do the same steps, of which an incident without an emergency has fewer.
type handler struct {
	s    *Service
	kind string
}

// Kind is the kind of its jobs.
func (h handler) Kind() string { return h.kind }

// Run works until the chunk's time is up.
func (h handler) Run(ctx context.Context, run *runner.Run) error {
	w := &worker{s: h.s, run: run}
	if err := w.load(ctx); err != nil {
		return err
	}
	for w.at.Phase != phaseEnd && run.Continue(ctx) {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	if w.at.Phase == phaseEnd {
		return w.end(ctx)
	}
	if err := w.save(ctx); err != nil {
		return err
	}
	return runner.Again
}

// worker is one chunk of a job.
type worker struct {
	s     *Service
	run   *runner.Run
	i     incidents.Incident
	at    cursor
	saved time.Time

	people []access.Principal // read once in a chunk
}

func (w *worker) load(ctx context.Context) (err error) {
	var a args
	if err := json.Unmarshal(w.run.Job.Args, &a); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if len(w.run.Job.Cursor) > 0 {
		if err := json.Unmarshal(w.run.Job.Cursor, &w.at); err != nil {
			return fault.Wrap(api.CodeInternal, err, "reading a job's cursor")
		}
	}
	w.saved = w.s.now()
	if w.i, err = w.s.stored(ctx, a.Incident); err != nil {
		return err
	}
	if !w.at.Ended {
		return nil
	}
	w.at = cursor{Phase: phaseRotate} // a retry: nobody needs to be alerted again
	return w.run.ClearFailures(ctx, nil)
}

func (w *worker) step(ctx context.Context) error {
	switch w.at.Phase {
	case phaseAlert:
		return w.alert(ctx)
	case phaseRotate:
		return w.rotate(ctx)
	case phaseDatasets:
		return w.dataset(ctx)
	case phaseUses:
		return w.uses(ctx)
	}
	return fault.New(api.CodeInternal, "working on an incident: its job stands in a phase that this keyturn doesn't know")
}

// saveTx writes the cursor in the transaction of a step.
func (w *worker) saveTx(ctx context.Context, tx store.Tx, at cursor) error {
	text, err := json.Marshal(at)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "writing a job's cursor")
	}
	return w.run.SaveTx(ctx, tx, text, nil, w.done(at), int64(len(w.i.Targets)))
}

// done is how many keys are behind the cursor.
func (w *worker) done(at cursor) int64 {
	switch at.Phase {
	case phaseAlert:
		return 0
	case phaseRotate:
		return int64(at.Next)
	}
	return int64(len(w.i.Targets))
}

// save writes the cursor by itself.
func (w *worker) save(ctx context.Context) error {
	w.saved = w.s.now()
	return w.s.cfg.Store.Change(ctx, func(tx store.Tx) error { return w.saveTx(ctx, tx, w.at) })
}

// change is a step: its effect, its event and the cursor after it in one transaction.
func (w *worker) change(ctx context.Context, in gate.Intent, next cursor, do func(context.Context, store.Tx, *audit.Event) error) error {
	err := w.s.cfg.Gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Incident, ev.Details.Emergency, ev.Details.Job, ev.Details.Source, ev.Details.OrderedBy = w.i.ID, w.i.Emergency, w.run.Job.ID, "incident", w.i.OpenedBy
		if err := do(ctx, tx, ev); err != nil {
			return err
		}
		return w.saveTx(ctx, tx, next)
	})
	failpoint.Hit("incident/after-step")
	if err == nil {
		w.at = next
	}
	return err
}

// incidentIntent is what events of a job say that are about the incident itself.
func (w *worker) incidentIntent(kind audit.EventType, verb string) gate.Intent {
	return gate.Intent{Action: access.IncidentWrite, Type: kind, Verb: verb, Resource: resource(w.i.ID), Reason: w.i.Reason}
}

// alert writes the event that channels will take their alerts from: once, since it goes with the cursor.
func (w *worker) alert(ctx context.Context) error {
	return w.change(ctx, w.incidentIntent(audit.Alert, "incident_opened"), cursor{Phase: phaseRotate},
		func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
			describe(ev, &w.i)
			_, err := w.s.add(ctx, tx, w.i.ID, did("alert raised"))
			return err
		})
}

// saveEvery is how often a cursor is saved that moves over steps which were done already.
const saveEvery = time.Second

// rotate does one key, or ends the phase.
func (w *worker) rotate(ctx context.Context) error {
	if w.at.Next >= len(w.i.Targets) {
		return w.rotated(ctx)
	}
	t := w.i.Targets[w.at.Next]
	next := w.at
	next.Next++
	done := next
	done.Changed++
	changed, err := w.s.cfg.Keys.RotateInEmergency(ctx, kms.Emergency{
		Incident: w.i.ID, Job: w.run.Job.ID, Key: t.Key, KeyID: t.KeyID, Last: t.Last, Compromised: w.i.CompromisedOf(t.Key),
		Actor: w.i.OpenedBy, Reason: w.i.Reason,
	}, func(ctx context.Context, tx store.Tx) error { return w.saveTx(ctx, tx, done) })
	switch {
	case err == nil && changed:
		w.at = done
		return nil
	case err == nil:
		w.at = next
	case passes(err):
		return err
	default:
		if err := w.failed(ctx, "key/"+t.Key, err); err != nil {
			return err
		}
		next.Failed++
		w.at = next
	}
	if w.s.now().Sub(w.saved) >= saveEvery {
		return w.save(ctx)
	}
	return nil
}

// passes says whether an error is not about the one thing that was done: the job's next attempt may do better.
func passes(err error) bool {
	return fault.CodeOf(err) == api.CodeConflict || jobs.Retryable(fault.CodeOf(err))
}

// failed puts a key on the job's list, for people; the others go on.
func (w *worker) failed(ctx context.Context, item string, why error) error {
	return w.run.AddFailures(ctx, []jobs.Failure{{Item: item, Reason: fault.MessageOf(why), At: w.s.now()}})
}

// rotated ends the phase with an entry that says what came of it.
func (w *worker) rotated(ctx context.Context) error {
	next := w.at
	next.Phase, next.Next = phaseDatasets, 0
	if !w.i.Emergency {
		w.at = next
		return nil
	}
	text := fmt.Sprintf("%d of %d keys have a new version; marked compromised: %s", int64(len(w.i.Targets))-w.at.Failed, len(w.i.Targets), names(w.i.Versions, maxScope))
	return w.change(ctx, w.incidentIntent(audit.Incident, "keys_rotated"), next, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		ev.Details.Items, ev.Details.Changed, ev.Details.Failed = uint64(len(w.i.Targets)), uint64(w.at.Changed), uint64(w.at.Failed)
		_, err := w.s.add(ctx, tx, w.i.ID, did(text))
		return err
	})
}

// end is how the job ends: done, or failed with what is on its list, which a retry takes up.
func (w *worker) end(ctx context.Context) error {
	at := w.at
	at.Ended = at.Failed > 0
	w.at = at
	if err := w.save(ctx); err != nil {
		return err
	}
	if at.Failed > 0 {
		return fault.Newf(api.CodeWrongState, "answering incident %s: %d keys could not be done", w.i.ID, at.Failed).
			WithNext("see them with keyturn job show " + w.run.Job.ID + ", mend the cause, then: keyturn job retry " + w.run.Job.ID)
	}
	return nil
}

// Needs is what somebody must be allowed to have the work of a job done: what opening the incident asked for. Nothing for
// jobs that aren't this room's.
func (s *Service) Needs(ctx context.Context, j jobs.Job) ([]access.Right, error) {
	if j.Kind != KindEmergency && j.Kind != KindScope {
		return nil, nil
	}
	var a args
	if err := json.Unmarshal(j.Args, &a); err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	out := []access.Right{{Action: access.IncidentWrite, Resource: resource(a.Incident)}}
	i, err := s.stored(ctx, a.Incident)
	if err != nil {
		return nil, err
	}
	for _, t := range i.Targets {
		out = append(out, access.Right{Action: access.KeyRotate, Resource: keyResource(t.Key)}, access.Right{Action: access.KeyCompromise, Resource: keyResource(t.Key)})
	}
	return out, nil
}
