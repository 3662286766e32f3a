package audit

import (
	"fmt"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Report is the outcome of a verification.
type Report struct {
	Events     uint64      // events that were read
	Shards     []ShardHead // sizes and roots as recomputed from the events, ascending
	Checkpoint Checkpoint  // the one that covers the end of the log
	Kept       int         // older checkpoints that were found to be prefixes
	Bad        *Place      // nil when all is well
}

// OK says whether the log is what its checkpoints signed.
func (r *Report) OK() bool { return r.Bad == nil }

// Place is where a log is first seen to be wrong. A change that leaves every line well formed shows only in a root, which
// covers many events; Through is then the last index that may be the changed one.
type Place struct {
	Line    uint64 // of the export, from 1; 0 when the place has none (a live log, or something missing at the end)
	Shard   int    // -1 when it belongs to none
	Index   uint64
	Through uint64 // at least Index
	Problem string
}

// String names the place and the problem for people.
func (p *Place) String() string {
	switch {
	case p.Shard < 0 && p.Line == 0:
		return p.Problem
	case p.Shard < 0:
		return fmt.Sprintf("line %d: %s", p.Line, p.Problem)
	}
	at := fmt.Sprintf("shard %d, index %d", p.Shard, p.Index)
	if p.Through > p.Index {
		at = fmt.Sprintf("shard %d, one of index %d to %d", p.Shard, p.Index, p.Through)
	}
	switch {
	case p.Line == 0:
		return at + ": " + p.Problem
	case p.Through > p.Index:
		return fmt.Sprintf("line %d or soon after (%s): %s", p.Line, at, p.Problem)
	}
	return fmt.Sprintf("line %d (%s): %s", p.Line, at, p.Problem)
}

// fault is the place as an error.
func (p *Place) fault() error {
	return fault.New(api.CodeIntegrity, "verifying the audit log: "+p.String()).
		WithNext("keep this log and every checkpoint as evidence; compare with other exports and checkpoint files")
}
