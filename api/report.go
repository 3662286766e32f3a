package api

import "time"

// Retirement is what is known of one version of one key at its end: the statement that `report retirement` signs. Created to
// Destroyed and Datasets are derived from events of the audit log, which come with it and are proven; the rest is what the
// store said when the statement was taken.
type Retirement struct {
	Log       string `json:"log"` // the audit log's name
	Key       string `json:"key"`
	KeyID     string `json:"keyId"`
	Version   uint32 `json:"version"`
	Purpose   string `json:"purpose"`
	Algorithm string `json:"algorithm"`

	State      string     `json:"state"`
	Activated  *time.Time `json:"activated"`
	LastOpened *time.Time `json:"lastOpened"` // to the minute
	Operations uint64     `json:"operations"`
	Bytes      uint64     `json:"bytes"`
	Tombstone  bool       `json:"tombstone"` // it stands on the list of destroyed versions outside the store
	Forced     bool       `json:"forced"`    // two people had it destroyed although something still depended on it
	TakenAt    time.Time  `json:"takenAt"`
	// Census is what the datasets of the key held under the version when the statement was taken; a dataset that could not be
	// counted says why, and Complete is false.
	Census   []RetirementCensus `json:"census"`
	Complete bool               `json:"complete"`

	Created          *RetirementAct   `json:"created"`
	Followed         *RetirementAct   `json:"followed"`
	FollowedBy       uint32           `json:"followedBy,omitempty"`
	Compromised      *RetirementAct   `json:"compromised,omitempty"`
	DestroyScheduled *RetirementAct   `json:"destroyScheduled"`
	DestroyDue       *time.Time       `json:"destroyDue,omitempty"`
	Destroyed        *RetirementAct   `json:"destroyed"`
	Datasets         []RetiredDataset `json:"datasets"`
	Removed          []RemovedDataset `json:"removed,omitempty"`
	Events           int              `json:"events"` // how many the statement rests on
}

// RetirementAct is who did something to the version, when and why.
type RetirementAct struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// RemovedDataset is a dataset of the key that was removed since the version was made. Left says that values stood under the version
// when it was, or that nobody counted: then the statement isn't complete.
type RemovedDataset struct {
	Dataset string `json:"dataset"`
	RetirementAct
	Left bool `json:"left"`
}

// RetiredDataset is how a dataset was moved away from this version since it was followed. RowsMoved never counts too many, except
// where events of earlier releases don't say from which versions rows were moved: then it counts all of them. ZeroSince is when a count of the
// whole table found nothing left under an older version, the first such count after the last rows were moved; nil when there was none, or
// when some stand under this version now.
type RetiredDataset struct {
	Dataset   string     `json:"dataset"`
	RowsMoved int64      `json:"rowsMoved"`
	ZeroSince *time.Time `json:"zeroSince"`
}

// RetirementCensus is one column at the time of the statement.
type RetirementCensus struct {
	Dataset string `json:"dataset"`
	Column  string `json:"column,omitempty"`
	Rows    int64  `json:"rows"`
	Problem string `json:"problem,omitempty"`
}

// RetirementDocument is the file that `report retirement` writes and `audit verify --retirement` reads.
type RetirementDocument struct {
	Format    string            `json:"format"`
	Statement string            `json:"statement"` // a Retirement as JSON: the very bytes that are signed
	Signature string            `json:"signature"`
	Proofs    []RetirementProof `json:"proofs"`
}

// RetirementProof is one event of the log with the steps of its inclusion proof (RFC 6962 section 2.1.1) and the signed
// checkpoint.
type RetirementProof struct {
	Event      string `json:"event"`
	Path       []byte `json:"path"`
	Checkpoint string `json:"checkpoint"`
}
