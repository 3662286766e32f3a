// Package incidents is the language of compromises: what an incident is, of which types and severities, which key versions
// it is about, what is written down in it, and when it may be closed. It holds rules and does nothing: no database, no
// clock, no randomness. The service is internal/incident; the rows are kept by internal/store behind [Tx].
//
// # The shape of an incident
//
// An [Incident] is opened once, with all that it is about: the versions that are believed to be known to others, and, when
// an emergency rotation opened it, the keys that get a new version ([Target]). None of that changes afterwards, so whatever
// is still to be done can be told from the incident and the keys alone, however often the work was interrupted. What happens
// later is added as entries ([Entry]), numbered from 1 without a gap; the incident counts them, so that one which is missing
// is noticed. It ends closed, and stays so.
package incidents

import (
	"encoding/base32"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// Incident is a recorded compromise, or the suspicion of one. All times are UTC with microseconds; the zero time is absent.
type Incident struct {
	ID       string // made by NewID: sorts by opening
	Type     Type
	Severity Severity
	State    State
	Reason   string // one line: why it was opened
	Details  string // as long as it has to be; may be empty

	Emergency bool      // opened by an emergency rotation
	Job       string    // id of the job that works on it
	Versions  []Version // what is believed to be known to others; of an emergency, what is marked compromised
	Targets   []Target  // keys that get a new version; only of an emergency

	Opened       time.Time
	OpenedBy     string // the principal's name
	Closed       time.Time
	ClosedBy     string
	ClosedReason string

	Entries  int64  // how many there are
	Revision int64  // of the stored row, for optimistic updates
	MAC      string // of the stored row, made and checked by package kms
}

// Version is one version of a key that an incident is about.
type Version struct {
	Key    string
	KeyID  envelope.KeyID
	Number uint32
}

// Target is a key that an emergency rotates. From and Last are the version that was active, and the newest one, when the
// incident was opened: a key that has newer ones was rotated since, by this incident or by somebody else, and isn't again.
type Target struct {
	Key   string
	KeyID envelope.KeyID
	From  uint32
	Last  uint32
}

// CompromisedOf are the versions of a key that the incident is about, ascending.
func (i *Incident) CompromisedOf(key string) (out []uint32) {
	for _, v := range i.Versions {
		if v.Key == key {
			out = append(out, v.Number)
		}
	}
	slices.Sort(out)
	return out
}

// Type is what kind of thing happened.
type Type string

// The closed list of types.
const (
	KeyCompromise    Type = "key-compromise"   // material of a version is known to others, or may be
	CredentialLeak   Type = "credential-leak"  // a token or password by which keys can be used
	DeviceLoss       Type = "device-loss"      // a machine or medium is lost or stolen
	Insider          Type = "insider"          // somebody who was allowed did what he should not
	Misconfiguration Type = "misconfiguration" // rights, a network or a backup stood open
	Other            Type = "other"
)

// Types lists them in the order in which help texts name them.
func Types() []Type {
	return []Type{KeyCompromise, CredentialLeak, DeviceLoss, Insider, Misconfiguration, Other}
}

// Severity is how bad it is.
type Severity string

// The closed list of severities.
const (
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// Severities lists them, the least one first.
func Severities() []Severity { return []Severity{Low, Medium, High, Critical} }

// State is where an incident stands.
type State string

// The states. An incident is opened and then closed, once.
const (
	Open   State = "open"
	Closed State = "closed"
)

// Valid says whether s is one of them.
func (s State) Valid() bool { return s == Open || s == Closed }

// idEncoding keeps the order of the bytes: RFC 4648 section 7 (base32hex), in lower case, without padding.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// idPrefix tells the id of an incident from that of a job.
const idPrefix = "inc-"

// NewID makes an id that sorts by opening: the prefix, then 48 bits of unix milliseconds and 72 random ones as 24 characters.
func NewID(now time.Time, random io.Reader) (string, error) {
	var raw [15]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (8 * (5 - i)))
	}
	if _, err := io.ReadFull(random, raw[6:]); err != nil {
		return "", fmt.Errorf("drawing an incident's id: %w", err)
	}
	return idPrefix + idEncoding.EncodeToString(raw[:]), nil
}

// ValidID says whether id has the form that NewID gives.
func ValidID(id string) bool {
	rest, ok := strings.CutPrefix(id, idPrefix)
	return ok && len(rest) == 24 && strings.Trim(rest, "0123456789abcdefghijklmnopqrstuv") == ""
}

// Close is the incident after somebody closed it. Errors: wrong_state when it is closed already. That nothing is left to be
// done is for the caller to know.
func (i Incident) Close(by, reason string, now time.Time) (Incident, error) {
	if err := i.MayChange("closing"); err != nil {
		return i, err
	}
	i.State, i.Closed, i.ClosedBy, i.ClosedReason = Closed, now, by, reason
	return i, nil
}

// MayChange is nil while the incident is open.
func (i Incident) MayChange(doing string) error {
	if i.State == Open {
		return nil
	}
	return fault.Newf(api.CodeWrongState, "%s incident %s: it is %s", doing, i.ID, i.State).
		WithNext("open another one if there is something new")
}
