package reencrypt

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
)

// Keys are the handles of one column's key, as they stand for the length of one chunk of work. It is safe for concurrent
// use.
type Keys interface {
	// ID is the key's id: only ciphertexts that name it are this column's.
	ID() envelope.KeyID
	// Current is the handle of the version that protects now; nil when the run seals nothing.
	Current() *envelope.Key
	// Opener is the handle of a version that may be opened. Errors: wrong_state, not_found and integrity condemn the
	// value that named the version; any other ends the chunk.
	Opener(ctx context.Context, version uint32) (*envelope.Key, error)
	// Newest is the number of the newest version that the key has at this moment, wherever it was rotated meanwhile: numbers
	// are dense from 1, so a value that was read before and names a higher one names none.
	Newest(ctx context.Context) (uint32, error)
	// Spend accounts for what was sealed under Current, before any of it is written. Errors: limit.
	Spend(ctx context.Context, operations, bytes uint64) error
}

// Work is one run over a target: what to do and how gently.
type Work struct {
	Kind    Kind
	Target  Target
	PK      []string
	Columns []WorkColumn
	DryRun  bool // reads and counts, writes nothing

	Workers int     // crypto goroutines, and at most writers; default 2
	Batch   int     // rows of a page; default 2000, or 200 with a Rate
	Rate    float64 // rows a second; 0 = as fast as it goes
	Sample  int     // verify: open every so manieth value only; 0 and 1 = all

	// Import, for KindEncrypt, opens values that another system encrypted; nil seals them as the plaintext they seem to be.
	Import *Import
}

// WorkColumn is one column of a Work, in the order of the target's columns.
type WorkColumn struct {
	Name    string
	Context *datasets.Template
	Keys    Keys
	Width   int // for an Import: characters, or bytes, that fit; 0 = no limit
}

// Defaults of a run. The rate keeps the response times of an application about as they are; pages are small then, so that
// a lock lives for milliseconds.
const (
	DefaultRate    = 15000
	defaultWorkers = 2
	maxWorkers     = 16
	throttledBatch = keys.DefaultBatchSize
	fastBatch      = 2000
	maxBatch       = 10000
)

// withDefaults fills in and bounds what was left open.
func (w Work) withDefaults() Work {
	if w.Workers <= 0 {
		w.Workers = defaultWorkers
	}
	w.Workers = min(w.Workers, maxWorkers)
	if w.Batch <= 0 {
		if w.Batch = fastBatch; w.Rate > 0 {
			w.Batch = throttledBatch
		}
	}
	w.Batch = min(w.Batch, maxBatch)
	w.Sample = max(w.Sample, 1)
	return w
}

// cryptos is the number of crypto goroutines: one feeds two writers.
func (w Work) cryptos() int { return max(1, w.Workers/2) }

// writers is the number of writers, 0 when nothing is written.
func (w Work) writers() int {
	if w.DryRun || w.Kind == KindVerify {
		return 0
	}
	return min(w.Workers, w.Target.Writers())
}

// skip is what needn't be transferred: values under the current version, when that is where everything goes.
func (w Work) skip() []envelope.Header {
	if !w.Kind.seals() {
		return nil
	}
	out := make([]envelope.Header, len(w.Columns))
	for i, c := range w.Columns {
		out[i] = c.Keys.Current().Header()
	}
	return out
}

// Progress is a pass so far. Everything in it is acknowledged by the database: what lies behind Cursor is done, whatever
// happens next.
type Progress struct {
	Cursor Key
	Counts Counts
	// Failed are the failures behind Cursor since the last call.
	Failed []Failed
	// Moved is from which versions rows were written since the last call, and at least how many from each: all of them, unless
	// the application changed some rows of a part in which several versions stood.
	Moved map[VersionOf]int64
	End   bool // the cursor stands behind the last row
}

// SaveFunc keeps what Progress says; the failures first, so that no cursor ever stands behind one that was forgotten. Its
// error ends the pass.
type SaveFunc func(ctx context.Context, p *Progress) error

// saveEvery is how often a pass that runs is saved: what a crash makes it look at again.
const saveEvery = 100 * time.Millisecond
