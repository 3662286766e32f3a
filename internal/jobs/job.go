// Package jobs is the language of durable work: what a job is, which states it moves through, who may move it, when a
// failed chunk is tried again. It holds rules and no engine: no database, no goroutine, no clock (time is an argument).
// The engine is internal/runner; the table is kept by internal/store behind [Tx].
//
// # The shape of a job
//
// A [Job] is a row. Work is done in chunks: an owner claims the row (its Epoch grows by one and names that owner's right
// to write), runs one chunk of at most half a minute, and saves the cursor that it reached. Every write after the claim
// is a compare-and-swap on the epoch, so an owner that was paused by the kernel, cut off from the database or declared
// dead writes nothing once somebody else has claimed: it gets [ErrLost] and stops. What a crash leaves behind is a row in
// state running with a lease that runs out; whoever sweeps next claims it and repeats one chunk at most (promise P5).
//
// # Two words that look alike
//
// [State] is what the job is; only the owner of the epoch (or a rule on a job that nobody owns) writes it. [Control] is
// what a person wants it to become; anybody allowed may write it at any time, and the owner reads it at every save.
package jobs

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"
	"time"
)

// Job is one piece of durable work. All times are UTC, truncated to microseconds; the zero time means absent.
type Job struct {
	ID        string // made by NewID: sorts by creation
	Kind      string // names the handler, e.g. "dataset-reencrypt"
	Subject   string // the resource worked on, e.g. "dataset/patients"
	UniqueKey string // at most one unfinished job has it; empty = any number
	Args      []byte // JSON written once by whoever enqueued it; never a secret
	Actor     string // the principal on whose behalf it runs
	Priority  int    // 1 (first) to 4 (last); 0 is stored as PriorityNormal
	Tries     int    // chunks that may fail in a row before the job is failed; 0 = what the runner allows

	State    State
	Control  Control
	Cursor   []byte // the handler's own bookmark: everything before it is durable
	Progress []byte // JSON of the handler's own counters
	Done     int64  // items behind the cursor
	Total    int64  // estimate until the job is done; 0 = unknown
	Error    string // a text safe for people (fault.MessageOf), of the last failure; empty after a good chunk

	Epoch      int64     // fencing token: +1 with each claim
	Owner      string    // the process that claimed last; empty when nobody owns it
	LeaseUntil time.Time // until when the owner is believed alive; zero when nobody owns it
	Attempts   int       // chunks that failed in a row; 0 after a good one

	Created     time.Time
	Started     time.Time // the first claim
	Finished    time.Time // reaching a final state
	NextAttempt time.Time // not to be claimed earlier; a queued job whose NextAttempt has passed is due
}

// Priorities. The engine has four levels; a lower number is served first.
const (
	PriorityUrgent = 1
	PriorityNormal = 2
	PriorityLow    = 3
	PriorityIdle   = 4
)

// DefaultMaxAttempts is how many chunks may fail in a row before a job is failed, unless its kind says otherwise.
const DefaultMaxAttempts = 5

// idEncoding keeps the order of the bytes: RFC 4648 section 7 (base32hex), in lower case, without padding.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// IDLength is the number of characters of a job's id.
const IDLength = 24

// NewID makes an id of 24 characters that sorts by creation: 48 bits of unix milliseconds, then 72 random bits.
func NewID(now time.Time, random io.Reader) (string, error) {
	var raw [15]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (8 * (5 - i)))
	}
	if _, err := io.ReadFull(random, raw[6:]); err != nil {
		return "", fmt.Errorf("drawing a job id: %w", err)
	}
	return idEncoding.EncodeToString(raw[:]), nil
}

// ValidID reports whether id has the form that NewID gives, so that a command can tell a typing error from a missing job.
func ValidID(id string) bool {
	return len(id) == IDLength && strings.Trim(id, "0123456789abcdefghijklmnopqrstuv") == ""
}
