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

	// ReserveUsage adds to a version's counters and returns the new totals. It refuses with code limit, adding nothing,
	// when a total would exceed the key's MaxOperations or MaxBytes.
	ReserveUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) (opsTotal, bytesTotal uint64, err error)
	// ReturnUsage takes back what was reserved and not used.
	ReturnUsage(ctx context.Context, id envelope.KeyID, version uint32, ops, bytes uint64) error
	// MarkOpened sets LastOpened unless it is later already.
	MarkOpened(ctx context.Context, id envelope.KeyID, version uint32, at time.Time) error

	// KEKs lists every key-encryption key of every purpose and generation.
	KEKs(ctx context.Context) ([]KEK, error)
	// PutKEK replaces a KEK's row and all of its wrappings.
	PutKEK(ctx context.Context, k KEK) error
}
