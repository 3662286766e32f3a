package keys

import (
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
)

// Rotation is one time that a version followed another, as history shows it. Its key and NewVersion name it.
type Rotation struct {
	KeyID                  envelope.KeyID
	Key                    string // the name; not stored with the rotation
	OldVersion, NewVersion uint32 // OldVersion is 0 where none was active
	Reason, Actor, Source  string // Source: "scheduler", "api"
	Incident               string // of an emergency
	At                     time.Time
	Duration               time.Duration // from the begin of the change to its writing
	SelfCheck              string        // one of the three below
	Rows                   int64         // values that were moved to NewVersion since
}

// What the self-check after a rotation found.
const (
	SelfCheckPending = ""       // not made yet
	SelfCheckOK      = "ok"     // every older version opened its sample
	SelfCheckFailed  = "failed" // one did not: what follows a rotation was stopped
)

// ActiveVersion is what a rotation check wants to know of a key, without reading it whole.
type ActiveVersion struct {
	Key          string
	Purpose      Purpose
	ByPolicy     bool
	Cryptoperiod Cryptoperiod
	Number       uint32
	Activated    time.Time
	// Operations and Bytes are what was reserved under it: see ReserveUsage.
	Operations, Bytes uint64
}
