package reencrypt

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/foreign"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/store"
)

// Import is how a run of KindEncrypt reads values that another system encrypted. It is safe for concurrent use.
type Import struct {
	Opener *foreign.Opener
	Clock  func() time.Time // for formats whose values carry a time
	// PlaintextToo seals values that aren't in the format as they are; without it they fail.
	PlaintextToo bool
}

// slowPage is how long a page may take when each of its values stretches a password for each candidate. A chunk ends
// between two pages: within its time they must be done, or nothing of them is kept.
const slowPage = 3 * time.Second

// bounded keeps the pages of an import as small as its stretching demands, down to single rows. More goroutines than
// there are processors would only make each page slower.
func (w *Work) bounded(f *from, columns int) {
	value := f.Stretching(len(f.Fingerprints))
	if value == 0 {
		return
	}
	most := min(max(1, int(slowPage/value)/columns), throttledBatch)
	if w.Batch == 0 || w.Batch > most {
		w.Batch = most
	}
	w.Workers = min(cmp.Or(w.Workers, defaultWorkers), max(defaultWorkers, 2*runtime.GOMAXPROCS(0)))
}

// foreign opens one value into c.plain. reason is set for one that has to stay as it is.
func (c *crypto) foreign(r *result, v []byte, form Form) (reason string) {
	im := c.work.Import
	out, which, verdict := im.Opener.Open(c.plain[:0], v, form == Text, im.Clock())
	switch {
	case verdict == foreign.Opened:
		c.plain = out
		r.counts.Opened++
		r.counts.Candidates[which]++
		return ""
	case verdict == foreign.NotForeign:
		r.counts.Plaintext++
		if im.PlaintextToo {
			c.plain = append(c.plain[:0], v...)
			return ""
		}
	default:
		r.counts.Unreadable++
	}
	return verdict.Reason()
}

// tooWide says so of a ciphertext in c.sealed that its column has no room for. Elsewhere the whole column is measured
// before the work begins; how long an imported value is, nobody knows before it is open.
func (c *crypto) tooWide(form Form, col int) string {
	width, needed := c.work.Columns[col].Width, len(c.sealed)
	if form == Text {
		needed = envelope.TextLen(needed)
	}
	if c.work.Import == nil || width == 0 || needed <= width {
		return ""
	}
	return fmt.Sprintf("as a ciphertext it needs %d characters, and the column has room for %d", needed, width)
}

// hintForStuck is what helps with values that a run had to leave.
func (w Work) hintForStuck() string {
	if w.Import != nil {
		return "see why with keyturn job show, and run dataset encrypt --from again with the keys that were missing"
	}
	return "see why with keyturn job show, mend them, and take them up again with keyturn job retry"
}

// from is a source as a job keeps it: everything but the candidate keys.
type from struct {
	foreign.Source
	PlaintextToo bool     `json:"plaintextToo,omitempty"`
	Fingerprints []string `json:"fingerprints"` // of the candidates, in their order
	Secret       string   `json:"secret"`       // random: what the sealed candidates are bound to
}

// String is format and layout.
func (f *from) String() string {
	if f.Layout == "" {
		return f.Format
	}
	return f.Format + " " + f.Layout
}

// same reports whether two requests ask for the same import.
func (f *from) same(o *from) bool {
	if f == nil || o == nil {
		return f == o
	}
	return f.Source == o.Source && f.PlaintextToo == o.PlaintextToo && slices.Equal(f.Fingerprints, o.Fingerprints)
}

// counted is how many values opened under each candidate.
func (f *from) counted(n Counts) []api.DatasetCandidate {
	out := make([]api.DatasetCandidate, min(len(f.Fingerprints), len(n.Candidates)))
	for i := range out {
		out[i] = api.DatasetCandidate{Fingerprint: f.Fingerprints[i], Values: n.Candidates[i]}
	}
	return out
}

// told is counted for an audit event, since the last one.
func (f *from) told(now, before Counts) string {
	var parts []string
	for i, c := range f.counted(now) {
		if n := since(c.Values, before.Candidates[i]); n > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", c.Fingerprint, n))
		}
	}
	return strings.Join(parts, " ")
}

// source checks a request's source, by making the opener that the job will make, and seals its candidates.
func (s *Service) source(ctx context.Context, kind Kind, d *datasets.Dataset, in *api.DatasetSource) (*from, []byte, error) {
	if kind != KindImport {
		return nil, nil, fault.New(api.CodeInvalid, "only encrypt takes values over from another system").WithField("from")
	}
	f := &from{PlaintextToo: in.PlaintextToo, Secret: randomID(), Source: foreign.Source{
		Format: in.Format, Layout: in.Layout, Encoding: in.Encoding, IV: in.IV, Iterations: in.Iterations,
		Unauthenticated: in.Unauthenticated, Expect: in.Expect,
	}}
	candidates := make([]*material.Bytes, len(in.Keys))
	for i, k := range in.Keys {
		candidates[i] = material.New(slices.Clone(k))
	}
	o, err := foreign.New(f.Source, candidates)
	if err != nil {
		return nil, nil, err
	}
	o.Destroy()
	if f.PlaintextToo && !f.Marked() {
		return nil, nil, fault.Newf(api.CodeInvalid, "reading the source format: values of %s can't be told from plaintext, so what is cut short would be sealed as if it were some", f).
			WithField("from.plaintextToo").WithNext("leave it out, and look at the rows that are listed as failed")
	}
	if f.Fingerprints, err = s.fingerprints(ctx, in.Keys); err != nil {
		return nil, nil, err
	}
	packed := pack(in.Keys)
	defer clear(packed)
	sealed, err := s.cfg.Ring.Seal(ctx, keys.KEKSecrets, bindingOf(d, f), packed)
	return f, sealed, err
}

// fingerprints tell candidates apart in jobs and audit events: 16 digits of a MAC under the store's audit KEK. Without
// that key nobody can try guesses against them, as he could against a hash.
func (s *Service) fingerprints(ctx context.Context, candidates [][]byte) ([]string, error) {
	out := make([]string, len(candidates))
	for i, k := range candidates {
		mac, err := s.cfg.Ring.MAC(ctx, keys.KEKAudit, "import-candidate", k)
		if err != nil {
			return nil, err
		}
		_, text, _ := strings.Cut(mac, ":")
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(raw) < 8 {
			return nil, fault.New(api.CodeInternal, "making a candidate key's fingerprint")
		}
		out[i] = hex.EncodeToString(raw[:8])
	}
	return out, nil
}

// bindingOf ties the sealed candidates to the dataset and to the one job that holds their random name.
func bindingOf(d *datasets.Dataset, f *from) keyring.Binding {
	return keyring.Binding{Kind: "import-keys", ID: d.ID + f.Secret, Version: 1}
}

// imports opens the candidates of a job. They go when it ends, so a job that is taken up again has none.
func (s *Service) imports(ctx context.Context, job string, d *datasets.Dataset, f *from) (*Import, error) {
	if f == nil {
		return nil, fault.New(api.CodeInternal, "reading a job's arguments: an import without a source")
	}
	var sealed []byte
	err := s.cfg.Store.View(ctx, func(tx store.Tx) (err error) {
		sealed, err = tx.JobSecret(ctx, job)
		return err
	})
	if fault.CodeOf(err) == api.CodeNotFound {
		return nil, errErased(d.Name, f)
	}
	if err != nil {
		return nil, err
	}
	packed, err := s.cfg.Ring.Unseal(ctx, keys.KEKSecrets, bindingOf(d, f), sealed)
	if err != nil {
		return nil, err
	}
	defer clear(packed)
	candidates, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	o, err := foreign.New(f.Source, candidates)
	if err != nil {
		return nil, err
	}
	return &Import{Opener: o, Clock: s.cfg.Clock, PlaintextToo: f.PlaintextToo}, nil
}

// errErased says what helps where an import has ended and its candidate keys are gone.
func errErased(dataset string, f *from) error {
	command := "keyturn dataset encrypt " + dataset + " --from " + f.Format
	if f.Layout != "" {
		command += " --from-layout " + f.Layout
	}
	return fault.New(api.CodeWrongState, "the candidate keys were erased when the job ended").WithField("job").
		WithNext("run it anew: " + command + " --from-key-file FILE …; what is done is not done twice")
}

// MayRetry refuses a job that has no keys to go on with: an import that ended. A retry would find that out too, but only after
// it had begun, and so forgotten what the job did.
func MayRetry(j jobs.Job) error {
	if Kind(j.Kind) != KindImport || !j.State.Final() {
		return nil
	}
	var a args
	if err := json.Unmarshal(j.Args, &a); err != nil {
		return fault.Wrap(api.CodeInternal, err, "reading a job's arguments")
	}
	if a.From == nil {
		a.From = &from{}
	}
	return errErased(a.Dataset, a.From)
}

// pack puts candidates back to back, each behind its length.
func pack(candidates [][]byte) []byte {
	n := 0
	for _, k := range candidates {
		n += 4 + len(k)
	}
	out := make([]byte, 0, n) // at once: growing would leave copies behind
	for _, k := range candidates {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(k))), k...)
	}
	return out
}

func unpack(packed []byte) (out []*material.Bytes, err error) {
	for len(packed) > 0 {
		v, rest, ok := cutCell(packed)
		if !ok || v == nil {
			return nil, fault.New(api.CodeIntegrity, "reading the candidate keys of a job")
		}
		out, packed = append(out, material.New(slices.Clone(v))), rest
	}
	return out, nil
}

// wipeKeys overwrites the candidates of a request.
func wipeKeys(in *api.DatasetSource) {
	if in == nil {
		return
	}
	for _, k := range in.Keys {
		clear(k)
	}
}
