package api

import "time"

// PolicyRule is what a policy says; empty members say nothing. Periods are durations such as "90d" or "12h".
type PolicyRule struct {
	Period      string `json:"period,omitempty"`      // the cryptoperiod by age; "0" = rotated on demand only
	Schedule    string `json:"schedule,omitempty"`    // a cron expression; "none" takes away what a less specific policy schedules
	Zone        string `json:"zone,omitempty"`        // an IANA time zone: the schedule's own, UTC if its policy says none; said alone, that of the inherited schedule
	Grace       string `json:"grace,omitempty"`       // how long a version still counts as in use after it was followed; "0" = not at all
	Reencrypt   string `json:"reencrypt,omitempty"`   // "yes" or "no": whether datasets are moved after a rotation by keyturn itself
	Concurrency int    `json:"concurrency,omitempty"` // re-encryptions after rotations that run at once, 1 to 16
	BatchSize   int    `json:"batchSize,omitempty"`   // rows a page of theirs, 1 to 10,000
	Attempts    int    `json:"attempts,omitempty"`    // chunks or rotations that may fail in a row, 1 to 20
	Warn        string `json:"warn,omitempty"`        // how long before its end a version is due soon; shorter than Period
}

// Policy says how the keys that Key, Purpose and Environment select are rotated. Of several that select a key each member
// of the rule comes from the most specific one: key before purpose before environment; then what was set before
// keyturn.yaml before what was shipped (Origin).
type Policy struct {
	Policy      string `json:"policy"`
	Key         string `json:"key,omitempty"`
	Purpose     string `json:"purpose,omitempty"`
	Environment string `json:"environment,omitempty"`
	Origin      string `json:"origin"`
	PolicyRule
	Created *time.Time `json:"created,omitempty"`
	Actor   string     `json:"actor,omitempty"`
	// Warnings, in the answer that set it: what of it doesn't hold now, and for which keys.
	Warnings []string `json:"warnings,omitempty"`
}

// PolicyList is every policy that holds on the node that was asked, the shipped ones first.
type PolicyList struct {
	Policies []Policy `json:"policies"`
}

// SetPolicyRequest makes a policy, or changes the members that it names of one that was set before.
type SetPolicyRequest struct {
	Key         string `json:"key,omitempty"`
	Purpose     string `json:"purpose,omitempty"`
	Environment string `json:"environment,omitempty"`
	Period      string `json:"period,omitempty"`
	Schedule    string `json:"schedule,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Grace       string `json:"grace,omitempty"`
	Reencrypt   string `json:"reencrypt,omitempty"`
	Concurrency int    `json:"concurrency,omitempty"`
	BatchSize   int    `json:"batchSize,omitempty"`
	Attempts    int    `json:"attempts,omitempty"`
	Warn        string `json:"warn,omitempty"`
}

// EffectivePolicy is what holds for one key. From names, for each member, the policy that said it; "key" where the key was
// made with a period of its own.
type EffectivePolicy struct {
	Key         string `json:"key"`
	Purpose     string `json:"purpose"`
	Environment string `json:"environment"`
	PolicyRule
	From map[string]string `json:"from"`
	Next *time.Time        `json:"next"`
}

// RotationKey is how one key stands. Last is when its active version became active, Next when it is to be followed by
// another; null = on demand only, or no active version (Inactive, with Version 0): such a key protects nothing and is never due.
type RotationKey struct {
	Name    string     `json:"name"`
	Purpose string     `json:"purpose"`
	Version uint32     `json:"version"`
	Last    *time.Time `json:"last"`
	Next    *time.Time `json:"next"`
	Overdue bool       `json:"overdue"`
	DueSoon bool       `json:"dueSoon"`
	// UsedPercent is how much of its operations or bytes the version has used, whichever is more: the next one is made at 90. 0
	// where the key has no such limit.
	UsedPercent int `json:"usedPercent"`
	// Inactive says that the key has no active version: it was suspended, disabled, compromised or destroyed.
	Inactive bool `json:"inactive"`
}

// RotationStatus is what `rotation status` prints: the keys that the caller may see, overdue ones first, then by Next, then those
// that are rotated on demand only, and last those without an active version.
type RotationStatus struct {
	Keys []RotationKey `json:"keys"`
	// Checked is when the last rotation check was due; null before the first. NextCheck is when the next one is.
	Checked   *time.Time `json:"checked"`
	NextCheck *time.Time `json:"nextCheck"`
}

// RotationRunRequest rotates what is due now. Max bounds how many, the longest overdue first; 0 = all.
type RotationRunRequest struct {
	Max    int  `json:"max,omitempty"`
	DryRun bool `json:"dryRun,omitempty"`
}

// RotationRun is what `rotation run` prints. Keys are those that are due, at most 1,000 of them, in the order of their
// turn; Due counts all.
type RotationRun struct {
	Job    string        `json:"job"` // empty when nothing is due, and for a dry run
	State  string        `json:"state"`
	DryRun bool          `json:"dryRun,omitempty"`
	Due    int           `json:"due"`
	Keys   []RotationKey `json:"keys"`
}

// Rotation is one time that a version followed another. Rows counts those that were moved to the new version since.
type Rotation struct {
	Key        string    `json:"key"`
	OldVersion uint32    `json:"oldVersion"`
	NewVersion uint32    `json:"newVersion"`
	Reason     string    `json:"reason"`
	Actor      string    `json:"actor"`
	Source     string    `json:"source"`
	Incident   string    `json:"incident,omitempty"`
	At         time.Time `json:"at"`
	Seconds    float64   `json:"seconds"`
	SelfCheck  string    `json:"selfCheck"` // "ok", "failed", or "pending"
	Rows       int64     `json:"rowsReencrypted"`
}

// RotationHistory is a page of rotations, newest first. Next is the cursor of the following page, empty on the last.
type RotationHistory struct {
	Rotations []Rotation `json:"rotations"`
	Next      string     `json:"next,omitempty"`
}

// PlannedJob is a standing order: what is planned, when, and what it did last.
type PlannedJob struct {
	Name    string     `json:"name"`
	Kind    string     `json:"kind"`
	Cron    string     `json:"cron"`
	Zone    string     `json:"zone"`
	Origin  string     `json:"origin"`
	Next    *time.Time `json:"next"`
	Last    *time.Time `json:"last"`
	LastJob string     `json:"lastJob,omitempty"`
}
