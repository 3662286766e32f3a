package reencrypt

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// args is what a job on a dataset was asked to do.
type args struct {
	Dataset string  `json:"dataset"`
	ID      string  `json:"id"` // of the dataset's record: another one may have taken over the name
	Workers int     `json:"workers,omitempty"`
	Batch   int     `json:"batch,omitempty"`
	Rate    float64 `json:"rate,omitempty"`
	DryRun  bool    `json:"dryRun,omitempty"`
	Sample  int     `json:"sample,omitempty"`
	// Compromised says that compromised versions may be opened: always to move data away from them, and for decrypt only
	// when who asked has the right of his own.
	Compromised bool `json:"compromised,omitempty"`
	// Patient says that the dataset is waited for when it can't be reached: nobody stands by who would try again.
	Patient bool `json:"patient,omitempty"`
	// From says how another system encrypted the values, for KindImport.
	From *from `json:"from,omitempty"`
	// MAC is over all of this, the kind of the job and the dataset's record: see sign.
	MAC string `json:"mac,omitempty"`

	sealed []byte // the candidate keys of From, on their way to the job
}

// progress is what a job keeps between two chunks.
type progress struct {
	State    State   `json:"state"`
	Reported Counts  `json:"reported"` // what audit events have said already
	Seconds  float64 `json:"seconds"`  // worked so far
	Ended    bool    `json:"ended"`    // finished, or failed for good: a retry begins anew
	// Moved is at least how many rows were moved from each version, KEY:VERSION, since the last event. Beyond mostMoved the
	// event doesn't say.
	Moved map[string]int64 `json:"moved,omitempty"`
}

// Encrypt seals every plaintext value.
func (s *Service) Encrypt(ctx context.Context, c *access.Caller, name string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return s.Run(ctx, c, name, KindEncrypt, in)
}

// Reencrypt moves every value to the active version of its key.
func (s *Service) Reencrypt(ctx context.Context, c *access.Caller, name string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return s.Run(ctx, c, name, KindReencrypt, in)
}

// Verify opens values and writes nothing.
func (s *Service) Verify(ctx context.Context, c *access.Caller, name string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return s.Run(ctx, c, name, KindVerify, in)
}

// Decrypt puts every value back in clear.
func (s *Service) Decrypt(ctx context.Context, c *access.Caller, name string, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return s.Run(ctx, c, name, KindDecrypt, in)
}

// Queue says how a job waits and how often it is tried. The zero value is right for what people ask for.
type Queue struct {
	Priority int // see jobs.Job
	Tries    int // see jobs.Job
	AtOnce   int // with so many of keyturn's own re-encryptions under way, no further one begins; 0 = any number
	patient  bool
}

// ErrEnough is what Move answers when as many of keyturn's own re-encryptions as may be are under way.
var ErrEnough = fault.New(api.CodeBusy, "as many re-encryptions as the policy allows at once are under way")

// Move starts the re-encryption of a dataset on behalf of keyturn itself, with the limits of in. Errors are those of Run;
// not_found when the dataset was removed meanwhile.
func (s *Service) Move(ctx context.Context, name string, q Queue, in api.DatasetRunRequest) error {
	q.patient = true
	_, err := s.run(ctx, system(), name, KindReencrypt, in, q)
	return err
}

// Moving counts the re-encryptions that keyturn started by itself and that are under way: those that haven't ended and don't
// wait, paused or for a database that is away.
func (s *Service) Moving(ctx context.Context, tx store.Tx) (n int, err error) {
	page, err := tx.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Queued, jobs.Running}, Kind: string(KindReencrypt), Limit: jobs.MaxLimit})
	for _, j := range page {
		if j.Actor == system().Principal.Name && (j.State == jobs.Running || j.Attempts == 0) {
			n++
		}
	}
	return n, err
}

// Run starts a job on a dataset, after a look at everything that would make it fail at once. One job works on a dataset
// at a time: while one of the same kind is unfinished, that one is the answer, and the same command after a crash
// goes on with it. Errors: conflict when a job of another kind is unfinished; those of the database and of its keys.
func (s *Service) Run(ctx context.Context, c *access.Caller, name string, kind Kind, in api.DatasetRunRequest) (api.DatasetRun, error) {
	return s.run(ctx, c, name, kind, in, Queue{})
}

func (s *Service) run(ctx context.Context, c *access.Caller, name string, kind Kind, in api.DatasetRunRequest, q Queue) (api.DatasetRun, error) {
	defer wipeKeys(in.From)
	if err := named(name); err != nil {
		return api.DatasetRun{}, err
	}
	if in.From != nil && kind == KindEncrypt {
		kind = KindImport
	}
	action := actionOf(kind)
	var a args
	var checked error
	if allowed(c, action, resource(name)) {
		a, checked = s.arguments(ctx, c, name, kind, in, q)
	}
	var lacks *denial
	if errors.As(checked, &lacks) {
		return api.DatasetRun{}, s.deny(ctx, c, lacks, audit.Reencryption, verbOf(kind, in.DryRun)+"_requested")
	}
	var stored jobs.Job
	intent := gate.Intent{Action: action, Type: audit.Reencryption, Verb: string(kind) + "_requested", Resource: resource(name)}
	err := s.cfg.Gate.Change(ctx, c, intent, func(ctx context.Context, tx store.Tx, ev *audit.Event) (err error) {
		if checked != nil {
			return checked
		}
		stored, err = s.enqueueAtOnce(ctx, tx, c, kind, a, q)
		ev.Details.Dataset, ev.Details.Job = name, stored.ID
		if a.From != nil {
			ev.Details.From = a.From.String()
		} else if in.Plaintext {
			ev.Details.From = "plaintext"
		}
		return err
	})
	if err != nil {
		return api.DatasetRun{}, err
	}
	out := RunOf(stored)
	out.Keeps, err = keeps(stored, in)
	return *out, err
}

// keeps is how the job works that is the answer to a request, when that names other settings; nil otherwise. What a request leaves
// open is right as it is, so the same command goes on with a job however that was started.
func keeps(j jobs.Job, in api.DatasetRunRequest) (*api.DatasetSettings, error) {
	var a args
	if err := json.Unmarshal(j.Args, &a); err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if urgent(j) {
		a = a.hurried()
	}
	w := Work{Workers: a.Workers, Batch: a.Batch, Rate: a.Rate, Sample: a.Sample}.withDefaults()
	differs := in.Unthrottled && in.Rate == 0 && w.Rate != 0 // a rate wins, as in arguments
	for _, s := range [][2]int{{in.Workers, w.Workers}, {in.BatchSize, w.Batch}, {in.Rate, int(w.Rate)}, {in.Sample, w.Sample}} {
		differs = differs || s[0] != 0 && s[0] != s[1]
	}
	if !differs {
		return nil, nil
	}
	return &api.DatasetSettings{Workers: w.Workers, BatchSize: w.Batch, Rate: int(w.Rate), Sample: w.Sample, Urgent: urgent(j)}, nil
}

func (s *Service) arguments(ctx context.Context, c *access.Caller, name string, kind Kind, in api.DatasetRunRequest, q Queue) (args, error) {
	if in.Workers < 0 || in.Workers > maxWorkers || in.BatchSize < 0 || in.BatchSize > maxBatch || in.Rate < 0 || in.Sample < 0 {
		return args{}, fault.Newf(api.CodeInvalid, "workers may be 1 to %d, the batch size 1 to %d, rate and sample not negative", maxWorkers, maxBatch)
	}
	d, err := s.record(ctx, name)
	if err != nil {
		return args{}, err
	}
	a := args{Dataset: name, ID: d.ID, Workers: in.Workers, Batch: in.BatchSize, Rate: float64(in.Rate), DryRun: in.DryRun, Sample: in.Sample, Patient: q.patient,
		Compromised: kind != KindDecrypt || s.mayDecryptCompromised(c, &d)}
	if err := missing(c, keyNeeds(kind, &d, false)); err != nil {
		return a, err
	}
	if err := mayBePlaintext(kind, &d, in); err != nil {
		return a, err
	}
	if in.From != nil {
		if a.From, a.sealed, err = s.source(ctx, kind, &d, in.From); err != nil {
			return a, err
		}
	}
	if a.Rate == 0 && !in.Unthrottled {
		a.Rate = DefaultRate
	}
	if err := s.sign(ctx, kind, &d, &a); err != nil { // nothing of them may change from here on
		return a, err
	}
	at, err := s.attach(ctx, &d, Session{})
	if err != nil {
		return a, err
	}
	defer at.close()
	w, err := s.work(ctx, at, kind, a)
	if err != nil || kind.work() != KindEncrypt {
		return a, err
	}
	return a, at.fits(ctx, w.suites(), a.From != nil) // the values may have grown since the dataset was added
}

// mayBePlaintext refuses to seal as plaintext what was registered as another system's ciphertexts, unless the request says that
// it is plaintext by now: sealed once more, they open to ciphertexts that the application can't read.
func mayBePlaintext(kind Kind, d *datasets.Dataset, in api.DatasetRunRequest) error {
	if in.Plaintext && kind != KindEncrypt {
		return fault.New(api.CodeInvalid, "only encrypt without a source takes what isn't keyturn's for plaintext").WithField("plaintext").
			WithNext("leave it out; with --from, --unencrypted-too seals what isn't in the format")
	}
	i := slices.IndexFunc(d.Columns, func(c datasets.Column) bool { return c.Foreign })
	if i < 0 || in.Plaintext || kind != KindEncrypt {
		return nil
	}
	return fault.Newf(api.CodeWrongState, "column %q of dataset %s was added as another system's ciphertexts: what is left of them would be sealed as if it were plaintext", d.Columns[i].Name, d.Name).
		WithField("from").
		WithNext("keyturn dataset encrypt " + d.Name + " --from FORMAT --from-key-file FILE; or, when all that isn't keyturn's is plaintext by now, with --plain")
}

func (s *Service) mayDecryptCompromised(c *access.Caller, d *datasets.Dataset) bool {
	for _, col := range d.Columns {
		if !allowed(c, access.KeyDecryptCompromised, access.Resource{Kind: access.KindKey, Name: col.Key}) {
			return false
		}
	}
	return true
}

// actionOf is what the work of a kind asks for, on its dataset.
func actionOf(kind Kind) access.Action {
	if kind == KindDecrypt {
		return access.DatasetDecrypt
	}
	return access.DatasetRun
}

// Needs is what somebody must be allowed to have the work of a job done: exactly what starting it asks for. Nothing for
// jobs that aren't this room's.
func (s *Service) Needs(ctx context.Context, j jobs.Job) ([]access.Right, error) {
	var a args
	if !isKind(j.Kind) {
		return nil, nil
	}
	if err := json.Unmarshal(j.Args, &a); err != nil {
		return nil, fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	kind := Kind(j.Kind)
	out := []access.Right{{Action: actionOf(kind), Resource: resource(a.Dataset)}}
	d, err := s.record(ctx, a.Dataset)
	if fault.CodeOf(err) == api.CodeNotFound || err == nil && d.ID != a.ID {
		return out, nil // removed meanwhile: the job finds that and opens nothing
	}
	if err != nil {
		return nil, err
	}
	return append(out, keyNeeds(kind, &d, a.Compromised)...), nil
}

// keyNeeds is what a kind of work asks for on the keys of a dataset. Encrypting and moving values is what the dataset was
// registered for by somebody who may use its keys; values in clear are for those only who may open them themselves. So is
// an import: who brings keys of his own learns from the counts what opens under them and looks as he expects.
func keyNeeds(kind Kind, d *datasets.Dataset, compromised bool) (out []access.Right) {
	if kind != KindDecrypt && kind != KindImport {
		return nil
	}
	for _, col := range d.Columns {
		key := access.Resource{Kind: access.KindKey, Name: col.Key}
		out = append(out, access.Right{Action: access.KeyDecrypt, Resource: key})
		if kind == KindImport {
			out = append(out, access.Right{Action: access.KeyEncrypt, Resource: key})
		}
		if compromised && kind == KindDecrypt {
			out = append(out, access.Right{Action: access.KeyDecryptCompromised, Resource: key})
		}
	}
	return out
}

// denial is a right on a key that the caller lacks.
type denial struct{ access.Right }

// Error is never shown: deny turns it into the doorway's own refusal.
func (d *denial) Error() string { return string(d.Action) + " is needed" }

// missing is the first of the rights that the caller doesn't have.
func missing(c *access.Caller, rights []access.Right) error {
	for _, r := range rights {
		if !allowed(c, r.Action, r.Resource) {
			return &denial{r}
		}
	}
	return nil
}

// deny has the doorway refuse and record what the caller lacks.
func (s *Service) deny(ctx context.Context, c *access.Caller, d *denial, kind audit.EventType, verb string) error {
	in := gate.Intent{Action: d.Action, Type: kind, Verb: verb, Resource: d.Resource}
	return s.cfg.Gate.Use(ctx, c, in, func(context.Context, *audit.Event) error {
		return fault.New(api.CodeDenied, "the rights of the caller changed meanwhile")
	})
}

func subject(dataset string) string { return "dataset/" + dataset }

// enqueueAtOnce is enqueue under the limit of q. It counts in the transaction that adds, which the database puts in order with
// those of other nodes. A job that was there already needs no place.
func (s *Service) enqueueAtOnce(ctx context.Context, tx store.Tx, c *access.Caller, kind Kind, a args, q Queue) (jobs.Job, error) {
	if q.AtOnce == 0 {
		return s.enqueue(ctx, tx, c, kind, a, q)
	}
	before, err := s.Moving(ctx, tx)
	if err != nil {
		return jobs.Job{}, err
	}
	j, err := s.enqueue(ctx, tx, c, kind, a, q)
	if err != nil || before < q.AtOnce {
		return j, err
	}
	after, err := s.Moving(ctx, tx)
	if err == nil && after > before {
		err = ErrEnough
	}
	return j, err
}

func (s *Service) enqueue(ctx context.Context, tx store.Tx, c *access.Caller, kind Kind, a args, q Queue) (jobs.Job, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return jobs.Job{}, fault.Wrap(api.CodeInternal, err, "writing a job's arguments")
	}
	list, err := unfinished(ctx, tx, a.Dataset)
	if err != nil {
		return jobs.Job{}, err
	}
	var first *jobs.Job // an emergency's, that goes before all others
	for i := range list {
		if doesThat(&list[i], kind, a) {
			return list[i], nil
		}
		if urgent(list[i]) {
			first = &list[i]
		}
	}
	if first != nil {
		return *first, hasIt(first, a.Dataset)
	}
	j, err := s.cfg.Enqueue(ctx, tx, jobs.Job{Kind: string(kind), Subject: subject(a.Dataset), UniqueKey: subject(a.Dataset), Args: text, Actor: actor(c),
		Priority: q.Priority, Tries: q.Tries})
	if err != nil {
		return j, err
	}
	if !doesThat(&j, kind, a) {
		return j, hasIt(&j, a.Dataset)
	}
	var taken args
	if err := json.Unmarshal(j.Args, &taken); err != nil {
		return j, fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if a.From != nil && taken.From.Secret == a.From.Secret { // the job is new
		return j, tx.SetJobSecret(ctx, j.ID, a.sealed)
	}
	return j, nil
}

// doesThat says whether an unfinished job does what is asked for, so that it is the answer.
func doesThat(j *jobs.Job, kind Kind, a args) bool {
	var taken args
	return json.Unmarshal(j.Args, &taken) == nil && j.Kind == string(kind) && taken.DryRun == a.DryRun && taken.ID == a.ID && taken.From.same(a.From)
}

// RunOf is the counts of a job on a dataset; nil for jobs of other kinds.
func RunOf(j jobs.Job) *api.DatasetRun {
	var a args
	var p progress
	if !isKind(j.Kind) || json.Unmarshal(j.Args, &a) != nil || len(j.Progress) > 0 && json.Unmarshal(j.Progress, &p) != nil {
		return nil
	}
	n := p.State.Counts
	out := &api.DatasetRun{
		Job: j.ID, State: string(j.State), Rows: n.Rows, Changed: n.Changed, Skipped: n.Skipped, Conflicts: n.Conflicts, Failed: n.Failed,
		Seconds: p.Seconds, Opened: n.Opened, Plaintext: n.Plaintext, Null: n.Null, NotSampled: n.NotSampled, DryRun: a.DryRun, Error: j.Error,
	}
	if a.From != nil {
		out.From, out.Candidates = a.From.String(), a.From.counted(n)
	}
	if p.Seconds > 0 {
		out.RowsPerSecond = float64(n.Rows) / p.Seconds
	}
	return out
}

func isKind(kind string) bool {
	for _, k := range jobKinds() {
		if string(k) == kind {
			return true
		}
	}
	return false
}
