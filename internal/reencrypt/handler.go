package reencrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/runner"
	"github.com/keyturn/keyturn/internal/store"
)

// Handlers are the job handlers of every kind, for the server's table.
func (s *Service) Handlers() []runner.Handler {
	out := make([]runner.Handler, 0, len(jobKinds()))
	for _, k := range jobKinds() {
		out = append(out, handler{s, k})
	}
	return out
}

// handler works on jobs of one kind, a chunk at a time.
type handler struct {
	s    *Service
	kind Kind
}

// Kind is the kind of its jobs.
func (h handler) Kind() string { return string(h.kind) }

// chunkTime is how long a chunk works before it lets another job have its turn; a pause or a cancel ends it within about
// a second.
const chunkTime = 20 * time.Second

// Run works on the job for up to chunkTime. State and failures are saved every saveEvery; at the end the cursor and an
// audit event with the counts since the last event are one transaction, so the events of a job always sum up to the
// counts that it shows. A crash looks again at what came after the last save: rows that were moved already are
// recognised by their header and count as skipped, so after a crash "changed" may be short by them, never too high.
func (h handler) Run(ctx context.Context, run *runner.Run) error {
	c := &chunk{s: h.s, kind: h.kind, run: run, begun: time.Now()}
	if err := c.load(); err != nil {
		return err
	}
	if err := h.s.turn(ctx, run.Job); err != nil {
		// A chunk that was recalled could not record what it had done. That is made up for before the job waits: it may be
		// cancelled meanwhile, and nothing of ours runs then.
		if c.p.Reported != c.p.State.Counts {
			if err := c.close(ctx, false, nil); !errors.Is(err, runner.Again) {
				return err
			}
		}
		return err
	}
	d, err := h.s.record(ctx, c.args.Dataset)
	if fault.CodeOf(err) == api.CodeNotFound || err == nil && d.ID != c.args.ID {
		return fault.Newf(api.CodeWrongState, "dataset %s was removed", c.args.Dataset)
	}
	if err != nil {
		return err
	}
	if err := h.s.genuine(ctx, h.kind, &d, c.args); err != nil {
		return c.close(ctx, false, err)
	}
	if urgent(run.Job) {
		c.args = c.args.hurried()
	}
	done, err := c.advance(ctx, &d)
	waits := c.args.Patient && ctx.Err() == nil && gone(err)
	if waits && !jobs.Retryable(fault.CodeOf(err)) {
		err = fault.Wrap(api.CodeUnavailable, err, "reaching dataset "+d.Name) // it may come back
	}
	if err = c.close(ctx, done, err); waits {
		return &runner.Away{Err: err}
	}
	return err
}

// gone says whether an error of a dataset's database may mean that it is away: it doesn't answer, or its file or table isn't
// there, as while a disk isn't mounted or a backup is being restored.
func gone(err error) bool {
	switch fault.CodeOf(err) {
	case api.CodeUnavailable, api.CodeBusy, api.CodeNotFound:
		return err != nil
	}
	return false
}

// chunk is one call of Run.
type chunk struct {
	s     *Service
	kind  Kind
	run   *runner.Run
	begun time.Time
	args  args
	w     *running // what the chunk worked with; nil when it didn't come that far
	p     progress
	retry bool    // the job had ended, and begins anew with what is on its list
	spent float64 // seconds of earlier chunks
	done  int64
	total int64
	keys  []*handles // of the columns
}

// load reads where the job stands. One that had ended was taken up again by `job retry`: it begins with the rows on its
// list of failures.
func (c *chunk) load() error {
	j := c.run.Job
	if err := json.Unmarshal(j.Args, &c.args); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if len(j.Progress) > 0 {
		if err := json.Unmarshal(j.Progress, &c.p); err != nil {
			return fault.Wrap(api.CodeInternal, err, "reading a job's progress")
		}
	}
	if c.retry = c.p.Ended; c.retry {
		c.p = progress{Seconds: c.p.Seconds}
	}
	c.spent, c.done, c.total = c.p.Seconds, j.Done, j.Total
	return nil
}

// errEnough ends a pass because the chunk is over or somebody wants the job to stop.
var errEnough = errors.New("enough for this chunk")

func (c *chunk) advance(ctx context.Context, d *datasets.Dataset) (done bool, err error) {
	a, err := c.s.attach(ctx, d, Session{Hurry: c.args.Rate == 0})
	if err != nil {
		return false, err
	}
	defer a.close()
	w, err := c.s.work(ctx, a, c.kind, c.args)
	if err != nil {
		return false, err
	}
	defer w.release(context.WithoutCancel(ctx))
	c.w, c.keys = w, w.handles
	if c.kind == KindImport {
		if w.Import, err = c.s.imports(ctx, c.run.Job.ID, d, c.args.From); err != nil {
			return false, err
		}
		defer w.Import.Opener.Destroy()
	}
	if c.p.State.Pass == 0 {
		err = c.begin(ctx, a, w)
	}
	for err == nil && c.run.Continue(ctx) && time.Since(c.begun) < chunkTime {
		until := c.begun.Add(chunkTime)
		if time.Until(c.p.State.NotBefore) > 0 { // it waits for the application: look at the control flag meanwhile
			until = time.Now().Add(500 * time.Millisecond)
		}
		done, err = w.Advance(ctx, &c.p.State, until, c.save)
		if done || err != nil {
			break
		}
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return done, err
}

// begin finds out how much there is to do, clears what an earlier run of the job left, and, if there was one, takes up the
// rows that failed in it. A crash in the midst of that loses the list and nothing else: the whole table is walked then.
func (c *chunk) begin(ctx context.Context, a *attached, w *running) error {
	failed, err := c.failedRows(ctx)
	if err != nil {
		return err
	}
	if err := c.run.ClearFailures(ctx, nil); err != nil {
		return err
	}
	c.done, c.total = 0, a.table.Rows
	if c.total <= 0 {
		c.total = 0
		err := a.target.Census(ctx, func(g Group) error {
			if g.Column == 0 {
				c.total += g.Rows
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	err = w.Retry(ctx, &c.p.State, failed, c.save)
	if fault.FieldOf(err) == "cursor" { // the table has another key since
		c.p.State = State{}
		return nil
	}
	return err
}

// failedRows is the list of a job that ended, each row once. Verifying and a dry run have nothing to make up for.
func (c *chunk) failedRows(ctx context.Context) (rows []Key, err error) {
	if !c.retry || c.kind == KindVerify || c.args.DryRun {
		return nil, nil
	}
	seen := map[string]bool{}
	for offset := 0; ; {
		page, total, err := c.run.Failures(ctx, offset, jobs.MaxLimit)
		if err != nil {
			return nil, err
		}
		for _, f := range page {
			if len(f.Retry) > 0 && !seen[string(f.Retry)] {
				seen[string(f.Retry)] = true
				rows = append(rows, f.Retry)
			}
		}
		if offset += len(page); len(page) == 0 || int64(offset) >= total {
			return rows, nil
		}
	}
}

// save keeps the state; the failures first, so that no cursor ever stands behind one that was forgotten.
func (c *chunk) save(ctx context.Context, s *State, p *Progress) error {
	if p != nil {
		c.note(p.Moved)
	}
	if p != nil && len(p.Failed) > 0 {
		now := c.s.cfg.Clock()
		failures := make([]jobs.Failure, len(p.Failed))
		for i, f := range p.Failed {
			failures[i] = jobs.Failure{Item: f.Item, Column: f.Column, Reason: f.Reason, At: now, Retry: f.Key}
		}
		if err := c.run.AddFailures(ctx, failures); err != nil {
			return err
		}
	}
	text, err := c.text()
	if err != nil {
		return err
	}
	failpoint.Hit("reencrypt/before-save")
	if err := c.run.Save(ctx, nil, text, c.done, c.total); err != nil {
		return err
	}
	if !c.run.Continue(ctx) {
		return errEnough
	}
	return nil
}

// mostMoved is how many versions an event names: an audit event has its limit, and so has a job's progress.
const mostMoved = 200

// note keeps what was moved for the next event.
func (c *chunk) note(moved map[VersionOf]int64) {
	for v, rows := range moved {
		for _, h := range c.keys {
			if h.ID() != v.Key {
				continue
			}
			name := fmt.Sprintf("%s:%d", h.key.Name, v.Version)
			if _, known := c.p.Moved[name]; known || len(c.p.Moved) <= mostMoved {
				if c.p.Moved == nil {
					c.p.Moved = map[string]int64{}
				}
				c.p.Moved[name] += rows
			}
			break
		}
	}
}

// toldMoved is what an event says was moved. One that doesn't say counts as moved from any version.
func toldMoved(moved map[string]int64) string {
	if len(moved) > mostMoved {
		return ""
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(moved)) {
		parts = append(parts, fmt.Sprintf("%s=%d", v, moved[v]))
	}
	return strings.Join(parts, " ")
}

// text is the progress as it is stored, with the counts that a bar shows.
func (c *chunk) text() ([]byte, error) {
	c.p.Seconds = c.spent + time.Since(c.begun).Seconds()
	c.done = c.p.State.Counts.Rows
	c.total = max(c.total, c.done)
	text, err := json.Marshal(c.p)
	if err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "writing a job's progress")
	}
	return text, nil
}

// close records the chunk: event and cursor in one transaction. It works even when ctx has ended, because what was
// written to the database must be said.
func (c *chunk) close(ctx context.Context, done bool, outcome error) error {
	if errors.Is(outcome, jobs.ErrLost) {
		return outcome // the job is another process's now, which counts from its own state
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	finished, before, moved := done, c.p.Reported, c.p.Moved
	in := gate.Intent{Action: access.DatasetRun, Type: audit.Reencryption, Verb: c.verb(done, outcome), Resource: resource(c.args.Dataset)}
	err := c.s.cfg.Gate.Change(ctx, system(), in, func(ctx context.Context, tx store.Tx, ev *audit.Event) (err error) {
		if done = finished; done {
			if done, err = c.current(ctx, tx); err != nil {
				return err
			}
			ev.Action = c.verb(done, outcome)
		}
		c.p.Ended = done || outcome != nil && !jobs.Retryable(fault.CodeOf(outcome))
		c.p.Reported, c.p.Moved = c.p.State.Counts, nil
		c.describe(ev, before)
		if c.kind == KindReencrypt {
			ev.Details.Moved = toldMoved(moved)
		}
		if outcome != nil {
			ev.Details.Code = string(fault.CodeOf(outcome))
		}
		text, err := c.text()
		if err != nil {
			return err
		}
		if done {
			c.total = c.done
		}
		if err := c.countMoved(ctx, tx, moved, since(c.p.State.Counts.Changed, before.Changed)); err != nil {
			return err
		}
		return c.run.SaveTx(ctx, tx, nil, text, c.done, c.total)
	})
	switch {
	case outcome != nil:
		return outcome
	case err != nil:
		return err
	case !done:
		return runner.Again
	}
	return nil
}

// countMoved adds to the history of rotations how many rows were moved to the versions that are active now.
func (c *chunk) countMoved(ctx context.Context, tx store.Tx, moved map[string]int64, rows uint64) error {
	if c.kind != KindReencrypt || c.args.DryRun || rows == 0 {
		return nil
	}
	counted := map[envelope.KeyID]bool{}
	names := map[string]bool{}
	for v := range moved {
		name, _, _ := strings.Cut(v, ":")
		names[name] = true
	}
	for _, h := range c.keys {
		if !names[h.key.Name] || counted[h.ID()] {
			continue
		}
		counted[h.ID()] = true
		if err := tx.AddRowsMoved(ctx, h.ID(), h.Current().Header().Version, int64(rows)); err != nil {
			return err
		}
	}
	return nil
}

// current says whether the versions that the chunk moved values to are the active ones still. If a key was rotated while the
// chunk ran, what it found done isn't: the next chunk works towards the new version. This is asked in the transaction that
// ends the job, so a rotation that is committed while the job is unfinished is never missed by it.
func (c *chunk) current(ctx context.Context, tx store.Tx) (bool, error) {
	if c.kind != KindReencrypt || c.w == nil {
		return true, nil
	}
	for _, h := range c.w.handles {
		k, err := tx.KeyByID(ctx, h.key.ID)
		if err != nil {
			return false, err
		}
		if v, ok := k.Active(); ok && v.Number != h.current.Header().Version {
			return false, nil
		}
	}
	return true, nil
}

func (c *chunk) verb(done bool, outcome error) string {
	switch {
	case outcome != nil:
		return verbOf(c.kind, c.args.DryRun) + "_interrupted"
	case done:
		return verbOf(c.kind, c.args.DryRun) + "_done"
	}
	return verbOf(c.kind, c.args.DryRun)
}

// verbOf is how events call the work of a kind. A dry run is called otherwise: what it counts as changed isn't, and its end
// says nothing about what is left.
func verbOf(kind Kind, dryRun bool) string {
	if dryRun {
		return string(kind) + "_dry_run"
	}
	return string(kind)
}

// describe says what was done since the last event.
func (c *chunk) describe(ev *audit.Event, before Counts) {
	n := c.p.State.Counts
	d := &ev.Details
	d.Dataset, d.Job, d.Kind, d.Node = c.args.Dataset, c.run.Job.ID, string(c.kind), c.run.Node()
	d.Rows, d.Changed = since(n.Rows, before.Rows), since(n.Changed, before.Changed)
	d.Skipped, d.Conflicts = since(n.Skipped, before.Skipped), since(n.Conflicts, before.Conflicts)
	d.Failed, d.Opened = since(n.Failed, before.Failed), since(n.Opened, before.Opened)
	d.Plaintext, d.Unreadable = since(n.Plaintext, before.Plaintext), since(n.Unreadable, before.Unreadable)
	if from := c.args.From; from != nil {
		d.From, d.Candidates = from.String(), from.told(n, before)
	}
}

func since(now, before int64) uint64 { return uint64(max(0, now-before)) }

// running is a Work whose handles give back what they reserved.
type running struct {
	Work
	handles []*handles
}

func (r *running) release(ctx context.Context) {
	for _, h := range r.handles {
		h.release(ctx)
	}
}

// suites are those that the columns are sealed with.
func (r *running) suites() map[string]envelope.Suite {
	out := map[string]envelope.Suite{}
	for i, h := range r.handles {
		out[r.Columns[i].Name] = h.key.Suite
	}
	return out
}

// work describes a run over an attached dataset.
func (s *Service) work(ctx context.Context, a *attached, kind Kind, in args) (*running, error) {
	r := &running{Work: Work{Kind: kind.work(), Target: a.target, PK: a.PK, DryRun: in.DryRun, Workers: in.Workers, Batch: in.Batch, Rate: in.Rate, Sample: in.Sample}}
	if in.From != nil {
		r.bounded(in.From, len(a.Columns))
	}
	for _, col := range a.Columns {
		template, err := datasets.Compile(a.Dataset, col.Name)
		if err != nil {
			return nil, err
		}
		h, err := s.handlesOf(ctx, col.KeyID, kind.work(), in.Compromised)
		if err != nil {
			return nil, err
		}
		r.handles = append(r.handles, h)
		place, _ := a.table.Column(col.Name)
		r.Columns = append(r.Columns, WorkColumn{Name: col.Name, Context: template, Keys: h, Width: place.Width})
	}
	return r, nil
}
