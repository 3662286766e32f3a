package access

import "sync/atomic"

// Right is one action on one resource, for work that asks for several.
type Right struct {
	Action   Action
	Resource Resource
}

// MarkRecorded notes that something which the caller asked for came to a decision, which is recorded before he hears of
// it. Safe for concurrent use, as is Recorded.
func (c *Caller) MarkRecorded() { atomic.StoreUint32(&c.recorded, 1) }

// Recorded says whether the log will know of this caller's request. A transport that refuses one before any decision
// records that itself.
func (c *Caller) Recorded() bool { return atomic.LoadUint32(&c.recorded) != 0 }
