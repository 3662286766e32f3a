package audit

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// ErrFenced says that the shard was not written, because another node took it (its epoch moved on) or because its head
// is not the one that the segment was built on. Nothing of the segment is stored. The gate re-reads the head and looks
// at the Nonce to learn whether it was its own earlier commit that moved the head.
var ErrFenced = fault.New(api.CodeUnavailable, "writing to the audit shard: its head has moved on")

// Premise is what an operation rests on: a key in the state that it had at a revision of its row. An operation whose premise
// has fallen, because another node changed the key meanwhile, must not be recorded as done, nor answered.
type Premise struct {
	Key      envelope.KeyID
	Revision int64
}

// Segment is what one group commit writes: some events, and the head of the shard's tree after them.
type Segment struct {
	Shard     int
	Seq       uint64    // 1 for a shard's first segment, then dense
	Epoch     int64     // the writer's, as AcquireShard gave it
	First     uint64    // index of the first event
	Count     int       // events in Lines, at least 1
	FirstTime time.Time // the earliest Time of its events
	LastTime  time.Time // the latest
	Mask      uint64    // bloom filter of the events' resources, 63 bits: see ResourceMask
	Lines     []byte    // the events' JSON, joined by '\n', no newline at the end
	Root      Hash      // of the tree with the segment's events in it
	Edge      []byte    // the right edge of that tree: Tree.AppendEdge
	Nonce     string    // random, unique: tells after an ambiguous commit whose segment is at the head

	// Premises must all hold at the moment at which Append writes the segment; they aren't stored. AppendSegment ignores them:
	// a transaction reads what it rests on itself.
	Premises []Premise
}

// Head is the end of a shard: its last segment and who may write the next one. A shard without segments has Seq 0,
// Size 0, an empty Edge and Nonce and the root of the empty tree.
type Head struct {
	Shard      int
	Epoch      int64
	Seq        uint64
	Size       uint64 // events in the shard
	Root       Hash
	Edge       []byte
	Nonce      string
	Node       string    // who holds it, empty when nobody does
	LeaseUntil time.Time // when another may take it
}

// AnyShard in SegmentQuery.Shard asks for all of them.
const AnyShard = -1

// Order is the order in which Segments answers.
type Order int

// The orders of a SegmentQuery.
const (
	ByShard Order = iota // shard, then sequence: the order of an export
	Oldest               // FirstTime, shard, sequence, ascending
	Newest               // the reverse of Oldest
)

// Position is a segment's place in the orders Oldest and Newest.
type Position struct {
	FirstTime time.Time
	Shard     int
	Seq       uint64
}

// SegmentQuery selects segments. Everything is decided from the small columns (times, mask, index) before any Lines is
// read, so that a query over ten million events touches only the blobs that may hold an answer. The zero value asks
// for all segments of shard 0.
type SegmentQuery struct {
	Shard     int       // AnyShard for all
	FromIndex uint64    // only segments with an event at or after this index
	ToIndex   uint64    // only segments with an event before this index; 0 = no bound
	Since     time.Time // only segments with LastTime at or after it; zero = no bound
	Until     time.Time // only segments with FirstTime before it; zero = no bound
	Mask      uint64    // only segments whose Mask has all these bits
	Order     Order
	After     Position // only segments that come after this one in the order asked for; with Order Oldest or Newest; zero = from the start
	Limit     int      // at most so many segments; 0 = all
	NoLines   bool     // leave Lines nil
}

// StoredCheckpoint is a signed checkpoint as the store keeps it.
type StoredCheckpoint struct {
	Sequence uint64 // 1 for the first, then dense
	Time     time.Time
	Events   uint64 // over all shards
	Note     string // the signed note, see Checkpoint
}

// SealedKeys are the log's own keys as the store keeps them: wrapped under the audit KEK.
type SealedKeys struct {
	Verifier string    // note verifier key, public
	Signing  []byte    // wrapped Ed25519 signing key
	MAC      []byte    // wrapped HMAC key for value_hash
	Created  time.Time // when the store was made
}

// Tx is what the log needs of a store. Errors are faults; "not found" is fault not_found.
type Tx interface {
	// AcquireShard gives the caller a shard for lease from now: a free or expired one, or a new one when all are held.
	// The shard's epoch goes up by one, which fences its former holder. SQLite, where a file lock excludes others,
	// always gives shard 0.
	AcquireShard(ctx context.Context, node string, now time.Time, lease time.Duration) (Head, error)
	// RenewShard moves the lease; a time in the past gives the shard up. ErrFenced when the epoch is no longer ours.
	RenewShard(ctx context.Context, shard int, epoch int64, until time.Time) error
	// AppendSegment writes one segment, ErrFenced unless the shard's epoch is s.Epoch and its head's sequence is s.Seq-1.
	AppendSegment(ctx context.Context, s *Segment) error
	// Fallen are those of the premises that don't hold any more.
	Fallen(ctx context.Context, premises []Premise) ([]Premise, error)
	// Heads lists the heads of all shards by shard number.
	Heads(ctx context.Context) ([]Head, error)
	// Segments calls fn for each selected segment. The segment and its bytes are valid during the call only; fn must
	// not use the store. An error of fn ends the walk and is returned.
	Segments(ctx context.Context, q SegmentQuery, fn func(*Segment) error) error
	// PutCheckpoint adds c; fault conflict when c.Sequence is not the last one's plus one. Of checkpoints that are more
	// than 1000 behind, only those whose Sequence divides by 720 stay.
	PutCheckpoint(ctx context.Context, c StoredCheckpoint) error
	// LastCheckpoint returns the newest; not_found when there is none.
	LastCheckpoint(ctx context.Context) (StoredCheckpoint, error)
	// Checkpoints calls fn for every kept checkpoint, oldest first, under the rules of Segments.
	Checkpoints(ctx context.Context, fn func(StoredCheckpoint) error) error
	// AuditKeys returns the log's own keys; not_found before init.
	AuditKeys(ctx context.Context) (SealedKeys, error)
	// PutAuditKeys writes or replaces them.
	PutAuditKeys(ctx context.Context, k SealedKeys) error
}
