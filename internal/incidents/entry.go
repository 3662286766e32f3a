package incidents

import (
	"context"
	"time"
)

// Entry is one line of what happened: a person's note, something that was done, or a finding. Entries are never changed.
type Entry struct {
	Incident string // its id
	Number   int64  // from 1, without a gap
	Kind     Kind
	At       time.Time
	By       string // the principal's name; "system" for keyturn itself
	Text     string
	Data     []byte // of findings: JSON in the form that the service gives it; empty otherwise
	MAC      string // of the stored row, made and checked by package kms
}

// Kind is what an entry is.
type Kind string

// The kinds of entries.
const (
	Note    Kind = "note"    // a person's words
	Action  Kind = "action"  // something that was done
	Dataset Kind = "dataset" // a dataset that holds what the incident is about, and the job that moves it
	Use     Kind = "use"     // who could use some versions, and who did
)

// Kinds lists them.
func Kinds() []Kind { return []Kind{Note, Action, Dataset, Use} }

// Filter selects incidents, newest first. Empty fields select everything.
type Filter struct {
	State State
	After string // only those older than this id
	Limit int    // 0 = DefaultLimit; more than MaxLimit is cut to it
}

// Sizes of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// PageSize is the number of rows that a storage reads for f.
func (f Filter) PageSize() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}

// Tx is what this room needs from storage, within one transaction. What isn't there is a fault with code not_found; what is
// there already, or was changed by somebody else, is a conflict.
type Tx interface {
	// CreateIncident writes a new incident; the stored revision is 1, whatever i says.
	CreateIncident(ctx context.Context, i Incident) error
	Incident(ctx context.Context, id string) (Incident, error)
	// Incidents is a page, newest first.
	Incidents(ctx context.Context, f Filter) ([]Incident, error)
	// CountIncidents counts them by state; states without an incident are absent.
	CountIncidents(ctx context.Context) (map[State]int, error)
	// UpdateIncident writes State, Job, Closed, ClosedBy, ClosedReason and Entries where the stored revision is still
	// i.Revision, and increments it; conflict otherwise. What an incident is about never changes.
	UpdateIncident(ctx context.Context, i Incident) error
	// AddEntry writes an entry; conflict when its number is taken. Whoever adds one counts it in the incident.
	AddEntry(ctx context.Context, e Entry) error
	// Entries lists all entries of an incident by number.
	Entries(ctx context.Context, incident string) ([]Entry, error)
}
