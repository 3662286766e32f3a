package keys

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
)

// Tx is what this room needs from storage, within one transaction. What isn't there is a fault with code not_found; what
// is there already, or was changed by somebody else, is a conflict.
type Tx interface {
	// CreateKey writes a new key with its versions; conflict when the name or id is taken.
	CreateKey(ctx context.Context, k Key) error
	KeyByName(ctx context.Context, name string) (Key, error)
	KeyByID(ctx context.Context, id envelope.KeyID) (Key, error)
	// Keys is a page in name order of the keys whose name is greater than after.
	Keys(ctx context.Context, after string, limit int) ([]Key, error)
	// CountKeys counts the keys, and the versions of all of them by state.
	CountKeys(ctx context.Context) (int, map[State]int, error)
	// UpdateKey writes the key and its changed versions where the stored revision is still k.Revision, and increments it;
	// conflict otherwise. It leaves Operations, Bytes and LastOpened of stored versions alone: only the three below
	// write them.
	UpdateKey(ctx context.Context, k Key) error

	AddTransitions(ctx context.Context, id envelope.KeyID, ts []Transition) error
	Transitions(ctx context.Context, id envelope.KeyID) ([]Transition, error)

	// EachActive calls do for every active version, in no order, until it returns an error. v is good during the call only, and
	// do must not use the transaction.
	EachActive(ctx context.Context, do func(v *ActiveVersion) error) error

	// AddRotation writes a rotation into the history.
	AddRotation(ctx context.Context, r Rotation) error
	// NoteSelfCheck writes what the self-check after a rotation found; AddRowsMoved adds to its rows. One that isn't in the
	// history, because it is older than that, is no error.
	NoteSelfCheck(ctx context.Context, id envelope.KeyID, version uint32, found string) error
	AddRowsMoved(ctx context.Context, id envelope.KeyID, version uint32, rows int64) error
	// Rotations lists rotations, newest first: those before a rotation (zero = all) of a key (zero = every key).
	Rotations(ctx context.Context, of envelope.KeyID, before Rotation, limit int) ([]Rotation, error)

	// InactiveKeys lists by name the keys that have no active version, as ActiveVersions of number 0 whose Activated is zero.
	// Retired ones, of which nothing is left but what is destroyed or will be, are only listed when asked for.
	InactiveKeys(ctx context.Context, retired bool) ([]ActiveVersion, error)

	// PutPolicy writes a policy of a name, or replaces it; conflict when another has the same selector.
	PutPolicy(ctx context.Context, p Policy) error
	// Policies lists the stored policies by name.
	Policies(ctx context.Context) ([]Policy, error)
	// DeletePolicy forgets a policy; not_found when there is none.
	DeletePolicy(ctx context.Context, name string) error

	// ReserveUsage adds to a version's counters and returns the new totals. It refuses with code limit, adding nothing,
	// when a total would exceed the key's MaxOperations or MaxBytes.
	ReserveUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) (opsTotal, bytesTotal uint64, err error)
	// ReturnUsage takes back what was reserved and not used.
	ReturnUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) error
	// MarkOpened sets LastOpened unless it is later already.
	MarkOpened(ctx context.Context, id envelope.KeyID, version uint32, at time.Time) error

	// KEKs lists every key-encryption key of every purpose and generation.
	KEKs(ctx context.Context) ([]KEK, error)
	// ActiveKEKs is the active key-encryption key of each purpose.
	ActiveKEKs(ctx context.Context) (map[KEKPurpose]KEKID, error)
	// PutKEKs replaces the rows of KEKs, in their order, and all of their wrappings. None may come twice.
	PutKEKs(ctx context.Context, list ...KEK) error
}
