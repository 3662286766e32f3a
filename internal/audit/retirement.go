package audit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// A retirement is what `keyturn report retirement` writes: a statement about one version of one key, the events that it
// rests on, each with the proof that it is in the log, and the signature of the log's key over the statement. What the
// statement says of the version's life is derived from those events alone, by Derive, and derived again by whoever verifies.

// RetirementFormat is the kind of statement that a retirement is signed as, and its format field. Those of format 1 took the first
// count that found nothing left for good: what was moved after it, as after a restored backup, isn't in them.
const (
	RetirementFormat = "retirement/2"
	retirement1      = "retirement/1"
)

// MaxRetirement is the largest file in bytes that is read.
const MaxRetirement = 256 << 20

// mention is what a retirement reads in an event.
type mention struct {
	Time       time.Time `json:"timestamp"`
	Type       EventType `json:"event_type"`
	Action     string    `json:"action"`
	Success    bool      `json:"success"`
	User       string    `json:"user_id"`
	Resource   string    `json:"resource"`
	KeyVersion uint32    `json:"key_version"`
	Reason     string    `json:"reason"`
	Details    struct {
		OldVersion uint32    `json:"old_version"`
		NewVersion uint32    `json:"new_version"`
		State      string    `json:"state"`
		FromState  string    `json:"from_state"`
		DestroyAt  time.Time `json:"destroy_at"`
		Dataset    string    `json:"dataset"`
		Kind       string    `json:"kind"`
		Changed    int64     `json:"changed"`
		Moved      string    `json:"moved"`
		Incident   string    `json:"incident"`
		Rows       int64     `json:"rows"`
		OrderedBy  string    `json:"ordered_by"` // who had keyturn do it
		// Scope is, of an emergency, the versions that it marked compromised, as KEY:VERSION, a space between them; of a dataset that was
		// removed its keys, and the versions under which values were left in it.
		Scope string `json:"scope"`
	} `json:"details"`
}

// marks says whether an event marks a version compromised. An emergency does that in the event of the rotation, whose
// version is the new one.
func (m *mention) marks(key string, version uint32) bool {
	if m.Details.State != "compromised" {
		return false
	}
	if m.Details.Incident == "" {
		return m.KeyVersion == version && m.Details.FromState != "destroy-scheduled"
	}
	return slices.Contains(strings.Fields(m.Details.Scope), fmt.Sprintf("%s:%d", key, version))
}

// follows says whether an event made the version that came after one. Where that one was disabled first, the event names none that
// was active.
func (m *mention) follows(version uint32) bool {
	return m.Details.OldVersion == version || m.Details.NewVersion == version+1
}

// movedFrom says whether a re-encryption's event moved rows away from a version, and at least how many. One that doesn't say
// from which versions, of an earlier release, may have moved all of its rows from this one.
func (m *mention) movedFrom(key string, version uint32) (rows int64, moved bool) {
	if m.Details.Moved == "" {
		return m.Details.Changed, m.Details.Changed > 0
	}
	for _, part := range strings.Fields(m.Details.Moved) {
		if name, count, _ := strings.Cut(part, "="); name == fmt.Sprintf("%s:%d", key, version) {
			rows, err := strconv.ParseInt(count, 10, 64)
			return max(0, rows), err == nil
		}
	}
	return 0, false
}

// Concerns says whether an event, an exported line, belongs into the retirement of a version: what made it, what ended it,
// and what moved data of the named datasets.
func Concerns(line []byte, key string, version uint32, datasets []string) bool {
	var m mention
	if json.Unmarshal(line, &m) != nil || !m.Success {
		return false
	}
	switch m.Type {
	case KeyCreate, KeyRotation, KeyState:
		return m.Resource == "key/"+key && (m.KeyVersion == version || m.Details.NewVersion == version || m.follows(version) || m.marks(key, version))
	case Reencryption:
		_, did := m.movedFrom(key, version)
		did = m.Action == movedDone || did && (m.Action == moved || m.Action == movedPart) // and not a dry run
		return m.Details.Kind == moved && did && slices.Contains(datasets, m.Details.Dataset)
	case ConfigWrite:
		return m.Action == DatasetRemoved && slices.Contains(strings.Fields(m.Details.Scope), key)
	}
	return false
}

// The action of the event that a dataset was removed, and what its state is when the values that were left in it were counted.
const (
	DatasetRemoved = "dataset_removed"
	RemovedCounted = "counted"
)

// The kind of a job that moves a dataset's values to the active version, which is the action of its events too, the action of
// those after which it had to begin anew, and that of its last one, which it records after it has counted the whole table and
// found nothing left under an older version.
const (
	moved     = "dataset-reencrypt"
	movedPart = moved + "_interrupted"
	movedDone = moved + "_done"
)

// Moved names the datasets of which a retirement says that rows were moved: events of others are no part of it.
func Moved(r *api.Retirement) []string {
	names := make([]string, len(r.Datasets))
	for i, d := range r.Datasets {
		names[i] = d.Dataset
	}
	return names
}

// Derive fills in what the events say of the version: they are exported lines, in any order. What a version did before it
// was followed by another is no moving away from it.
func Derive(r *api.Retirement, lines [][]byte) error {
	all := make([]mention, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal(line, &all[i]); err != nil {
			return fault.New(api.CodeIntegrity, "reading an event of a retirement: it is no event")
		}
	}
	slices.SortStableFunc(all, func(a, b mention) int { return a.Time.Compare(b.Time) })
	r.Created, r.Followed, r.FollowedBy, r.Compromised, r.DestroyScheduled, r.Destroyed = nil, nil, 0, nil, nil, nil
	for i := range all {
		deriveLife(r, &all[i])
	}
	r.Events, r.Removed = len(all), nil
	for i := range all {
		deriveRemoved(r, &all[i])
	}
	sets := map[string]*api.RetiredDataset{}
	for i := range all {
		deriveMoved(r, &all[i], sets)
	}
	for _, c := range r.Census {
		if d := sets[c.Dataset]; d != nil && c.Rows > 0 {
			d.ZeroSince = nil // whatever moved data away, some of it is back
		}
	}
	r.Datasets = []api.RetiredDataset{}
	for _, d := range sets {
		r.Datasets = append(r.Datasets, *d)
	}
	slices.SortFunc(r.Datasets, func(a, b api.RetiredDataset) int { return strings.Compare(a.Dataset, b.Dataset) })
	return nil
}

func deriveLife(r *api.Retirement, m *mention) {
	if m.Type == Reencryption || m.Type == ConfigWrite {
		return
	}
	act := &api.RetirementAct{At: m.Time, By: cmp.Or(m.Details.OrderedBy, m.User), Reason: m.Reason}
	if m.Details.NewVersion == r.Version && r.Created == nil {
		r.Created = act
	}
	if m.follows(r.Version) && r.FollowedBy == 0 { // whatever ended its protecting before
		r.Followed, r.FollowedBy = act, m.Details.NewVersion
	}
	if m.marks(r.Key, r.Version) {
		r.Compromised = act
	}
	if m.KeyVersion != r.Version {
		return
	}
	switch {
	case m.Action == "disabled" && r.Followed == nil:
		r.Followed = act
	case m.Details.State == "destroy-scheduled":
		r.DestroyScheduled = act
		due := m.Details.DestroyAt
		r.DestroyDue = &due
	case m.Details.FromState == "destroy-scheduled" && m.Details.State == "destroyed":
		r.Destroyed = act
	case m.Details.FromState == "destroy-scheduled":
		r.DestroyScheduled, r.DestroyDue = nil, nil // taken back
	}
}

// deriveRemoved notes datasets of the key that were removed since the version was made. Nobody knows what is left in one that held
// values under it, or wasn't counted.
func deriveRemoved(r *api.Retirement, m *mention) {
	if m.Type != ConfigWrite || r.Created != nil && m.Time.Before(r.Created.At) {
		return
	}
	left := slices.Contains(strings.Fields(m.Details.Scope), fmt.Sprintf("%s:%d", r.Key, r.Version)) || m.Details.State != RemovedCounted
	r.Removed = append(r.Removed, api.RemovedDataset{Dataset: m.Details.Dataset, RetirementAct: api.RetirementAct{At: m.Time, By: m.User, Reason: m.Reason}, Left: left})
	r.Complete = r.Complete && !left
}

func deriveMoved(r *api.Retirement, m *mention, sets map[string]*api.RetiredDataset) {
	if m.Type != Reencryption || r.Followed == nil || m.Time.Before(r.Followed.At) {
		return
	}
	d := sets[m.Details.Dataset]
	if d == nil {
		d = &api.RetiredDataset{Dataset: m.Details.Dataset}
		sets[m.Details.Dataset] = d
	}
	if rows, moved := m.movedFrom(r.Key, r.Version); moved {
		d.RowsMoved += rows
		d.ZeroSince = nil // there were some again, as after a restored backup
	}
	if m.Action == movedDone && d.ZeroSince == nil {
		at := m.Time
		d.ZeroSince = &at
	}
}

// VerifyRetirement checks a file offline: that the log's key signed the statement, that every event stands at its place in
// the log as a checkpoint of that key signed it, that every event concerns the version, and that what the statement derives
// from events is what they give. The error, of code integrity, says what is wrong.
func VerifyRetirement(text []byte, key *Key) (api.Retirement, error) {
	var p api.RetirementDocument
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&p)
	if _, behind := dec.Token(); err == nil && behind != io.EOF { // another reader might take the last of two
		return api.Retirement{}, badRetirement("something stands behind the document")
	}
	switch {
	case err == nil && p.Format == retirement1:
		return api.Retirement{}, fault.New(api.CodeIntegrity, "verifying a retirement: an earlier keyturn wrote it, which could call data gone that had come back").
			WithNext("have it written anew: keyturn report retirement")
	case err != nil || p.Format != RetirementFormat:
		return api.Retirement{}, badRetirement("it is not one that keyturn wrote")
	}
	if bad := scanRetirement(text); bad != "" {
		return api.Retirement{}, badRetirement("it has " + bad)
	}
	if err := VerifyStatement(key, RetirementFormat, []byte(p.Statement), p.Signature); err != nil {
		return api.Retirement{}, err
	}
	var r api.Retirement
	if err := json.Unmarshal([]byte(p.Statement), &r); err != nil {
		return api.Retirement{}, badRetirement("its statement can't be read")
	}
	names := Moved(&r)
	var lines [][]byte
	seen := map[string]bool{}
	for i, m := range p.Proofs {
		proof := EventProof{Event: m.Event, Checkpoint: m.Checkpoint}
		if len(m.Path)%HashSize != 0 {
			return r, badRetirement(fmt.Sprintf("proof %d has a broken path", i))
		}
		for at := 0; at < len(m.Path); at += HashSize {
			proof.Path = append(proof.Path, Hash(m.Path[at:at+HashSize]))
		}
		if _, err := proof.Verify(key); err != nil {
			return r, fault.Wrapf("", err, "verifying event %d of a retirement", i)
		}
		if seen[m.Event] || !Concerns([]byte(m.Event), r.Key, r.Version, names) {
			return r, badRetirement(fmt.Sprintf("event %d is not about this version, or stands twice", i))
		}
		seen[m.Event] = true
		lines = append(lines, []byte(m.Event))
	}
	derived := r
	if err := Derive(&derived, lines); err != nil {
		return r, err
	}
	if again, err := json.Marshal(derived); err != nil || string(again) != p.Statement {
		return r, badRetirement("its events say something else than its statement")
	}
	return r, nil
}

// scanRetirement checks that a document means the same to every JSON reader, as scanLine does with a line. White space and the order
// of members are free: evidence may have been printed for people, or kept in a database. The verdict is empty when all is well.
func scanRetirement(text []byte) (bad string) {
	var compact bytes.Buffer
	if json.Compact(&compact, text) != nil {
		return badShape // not reached: it was read
	}
	s := scanner{b: compact.Bytes()}
	value := func() { s.str() }
	s.members(map[string]func(){"format": value, "statement": value, "signature": value, "proofs": func() {
		s.literal("[")
		for !s.option("]") && s.bad == "" {
			s.members(map[string]func(){"event": value, "path": value, "checkpoint": value})
			if !s.option(",") && s.peek() != ']' {
				s.fail(badShape)
			}
		}
	}})
	return s.bad
}

func badRetirement(why string) error {
	return fault.New(api.CodeIntegrity, "verifying a retirement: "+why)
}
