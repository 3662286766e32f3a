package reencrypt

import "github.com/keyturn/keyturn/internal/foreign"

// Kind is what a run does to a dataset. It is also the kind of its job.
type Kind string

// The kinds.
const (
	KindEncrypt   Kind = "dataset-encrypt"   // plaintext -> current version; whatever looks like a ciphertext stays
	KindReencrypt Kind = "dataset-reencrypt" // every older version -> current version; plaintext stays
	KindVerify    Kind = "dataset-verify"    // opens values and writes nothing
	KindDecrypt   Kind = "dataset-decrypt"   // ciphertext -> plaintext
)

// KindImport is the kind of a job that takes over what another system encrypted; its work is KindEncrypt with an Import. It
// is a kind of its own so that a node of an older release, which would take foreign ciphertexts for plaintext, leaves it.
const KindImport Kind = "dataset-import"

// Kinds lists every kind of work.
func Kinds() []Kind { return []Kind{KindEncrypt, KindReencrypt, KindVerify, KindDecrypt} }

// jobKinds lists every kind of job.
func jobKinds() []Kind { return append(Kinds(), KindImport) }

// work is what a job of this kind does.
func (k Kind) work() Kind {
	if k == KindImport {
		return KindEncrypt
	}
	return k
}

// seals reports whether a run of this kind makes new ciphertexts.
func (k Kind) seals() bool { return k == KindEncrypt || k == KindReencrypt }

// Counts is what a run did. Rows, Skipped, Null, Plaintext, NotSampled and Unreadable are those of the first pass over the
// table; later passes, which look at the same rows again, add to the other counts only. Failed and Stuck are those of the pass
// that had most of them: what can't be done fails again in each. Of a verification, Opened, Plaintext, Null, NotSampled and
// Failed add up to all its values, so that nothing it didn't open can pass for opened.
type Counts struct {
	Rows      int64 `json:"rows"`      // rows read
	Changed   int64 `json:"changed"`   // rows written (with a dry run: that would be)
	Skipped   int64 `json:"skipped"`   // rows in which nothing was to be done
	Conflicts int64 `json:"conflicts"` // writes that gave way to the application; a later pass did them
	Failed    int64 `json:"failed"`    // values that went to the dead-letter list
	Stuck     int64 `json:"stuck"`     // those of them that a census goes on counting as work to be done
	Opened    int64 `json:"opened"`    // values that opened, under the right key and context

	Null       int64 `json:"null"`       // values that are NULL
	Plaintext  int64 `json:"plaintext"`  // values that aren't ours
	NotSampled int64 `json:"notSampled"` // values of ours that a verification left unopened, as its sample said
	Unreadable int64 `json:"unreadable"` // values that look like ours and don't open, or belong to another key

	// Candidates is how many values opened under each candidate key of an Import. A value that gave way to the application
	// counts again when a later pass opens it.
	Candidates [foreign.MaxCandidates]int64 `json:"candidates,omitzero"`
}

// add sums up. again leaves out what counts a row of the table, or a value that failed, once.
func (c *Counts) add(o Counts, again bool) {
	c.Changed += o.Changed
	c.Conflicts += o.Conflicts
	c.Opened += o.Opened
	for i, n := range o.Candidates {
		c.Candidates[i] += n
	}
	if again {
		return
	}
	c.Rows += o.Rows
	c.Skipped += o.Skipped
	c.Failed += o.Failed
	c.Stuck += o.Stuck
	c.Null += o.Null
	c.Plaintext += o.Plaintext
	c.NotSampled += o.NotSampled
	c.Unreadable += o.Unreadable
}

// Failed is one value that a run could not do.
type Failed struct {
	Key    Key    // finds the row again
	Item   string // the key as people read it
	Column string
	Reason string // never a value
}
