package api

import "time"

// Incident is a recorded compromise, or the suspicion of one: an item of `incident list`, and the head of `incident show`.
// Versions is what it is about; Keys is how many keys its emergency rotation gives a new version.
type Incident struct {
	ID           string            `json:"id"`
	Type         string            `json:"type"`     // key-compromise, credential-leak, device-loss, insider, misconfiguration or other
	Severity     string            `json:"severity"` // low, medium, high or critical
	State        string            `json:"state"`    // open or closed
	Opened       time.Time         `json:"opened"`
	OpenedBy     string            `json:"openedBy"`
	Reason       string            `json:"reason"`
	Details      string            `json:"details,omitempty"`
	Emergency    bool              `json:"emergency"`
	Versions     []IncidentVersion `json:"versions"`
	Keys         int               `json:"keys"`
	Job          string            `json:"job"`
	Closed       *time.Time        `json:"closed"`
	ClosedBy     string            `json:"closedBy,omitempty"`
	ClosedReason string            `json:"closedReason,omitempty"`
}

// IncidentVersion names one version of a key.
type IncidentVersion struct {
	Key     string `json:"key"`
	Version uint32 `json:"version"`
}

// IncidentList is one page of incidents, newest first. Next is the cursor of the following page, empty on the last.
type IncidentList struct {
	Incidents []Incident `json:"incidents"`
	Next      string     `json:"next,omitempty"`
}

// OpenIncidentRequest opens an incident that changes no key. Versions may be empty.
type OpenIncidentRequest struct {
	Type     string            `json:"type"`
	Severity string            `json:"severity"`
	Reason   string            `json:"reason"`
	Details  string            `json:"details,omitempty"`
	Versions []IncidentVersion `json:"versions,omitempty"`
}

// EmergencyRequest opens an incident and rotates keys in it: exactly one of Keys, All and Purpose says which. Compromised
// versions belong to those keys; when none is named, the version that is active now of each key is meant. Type and Severity
// are "key-compromise" and "high" when left out.
type EmergencyRequest struct {
	Keys        []string          `json:"keys,omitempty"`
	All         bool              `json:"all,omitempty"`
	Purpose     string            `json:"purpose,omitempty"`
	Compromised []IncidentVersion `json:"compromised,omitempty"`
	Reason      string            `json:"reason"`
	Details     string            `json:"details,omitempty"`
	Type        string            `json:"type,omitempty"`
	Severity    string            `json:"severity,omitempty"`
}

// Emergency is what an emergency rotation has begun: the incident, whose Job does the work. Skipped names keys that All or
// Purpose would have chosen and that have no active version.
type Emergency struct {
	Incident Incident `json:"incident"`
	Skipped  []string `json:"skipped"`
}

// EmergencyPlan is what an emergency rotation would do, found out without changing anything: what `key rotate --emergency
// --dry-run` prints. Skipped is as in Emergency.
type EmergencyPlan struct {
	DryRun   bool               `json:"dryRun"` // true
	Keys     []EmergencyKey     `json:"keys"`
	Skipped  []string           `json:"skipped"`
	Datasets []EmergencyDataset `json:"datasets"`
	TakenAt  time.Time          `json:"takenAt"`
	Withheld []string           `json:"withheld,omitempty"` // what the caller may not see, and which right it takes
}

// EmergencyKey is one key of a plan: To would be its active version in the place of From, and Compromised would be marked, each
// with the state that it has now. Could is who may use the key.
type EmergencyKey struct {
	Key         string                 `json:"key"`
	From        uint32                 `json:"from"`
	To          uint32                 `json:"to"`
	Compromised []IncidentVersionState `json:"compromised"`
	Could       []IncidentPrincipal    `json:"could"`
}

// EmergencyDataset is a dataset of a plan. Moves says whether it would be re-encrypted ahead of all other work: it is when a
// column is under one of the keys, whatever it holds. Unknown says why it could not be counted, Problem which job works on it
// and would step aside.
type EmergencyDataset struct {
	Dataset string         `json:"dataset"`
	Held    []IncidentHeld `json:"held"`
	Moves   bool           `json:"moves"`
	Unknown string         `json:"unknown,omitempty"`
	Problem string         `json:"problem,omitempty"`
}

// IncidentNoteRequest adds a note.
type IncidentNoteRequest struct {
	Text string `json:"text"`
}

// CloseIncidentRequest closes an incident.
type CloseIncidentRequest struct {
	Reason string `json:"reason"`
	// Removed closes it although datasets were removed while values stood in them under its versions, or uncounted.
	Removed bool `json:"removed,omitempty"`
}

// IncidentDetail is what `incident show` prints: an incident with what it has come to. Remaining is how many values stand
// under its compromised versions now; null when a dataset could not be counted, which Datasets then says of.
type IncidentDetail struct {
	Incident    Incident          `json:"incident"`
	JobState    string            `json:"jobState"`
	Rotated     int               `json:"rotated"` // of Incident.Keys
	KeyProgress []IncidentKey     `json:"keyProgress"`
	Datasets    []IncidentDataset `json:"datasets"`
	Remaining   *int64            `json:"remaining"`
	TakenAt     time.Time         `json:"takenAt"`
	Uses        []IncidentUse     `json:"uses"`
	Timeline    []IncidentEntry   `json:"timeline"`
	Withheld    []string          `json:"withheld,omitempty"` // what the caller may not see, and which right it takes
}

// What a Withheld line begins with: who could use versions, and who did.
const (
	WithheldCould = "who could use the versions"
	WithheldDid   = "who used the versions"
)

// IncidentKey is how far one key has come. From is the version that was active when the incident was opened.
type IncidentKey struct {
	Key      string                 `json:"key"`
	From     uint32                 `json:"from,omitempty"`
	Active   uint32                 `json:"active,omitempty"`
	Rotated  bool                   `json:"rotated"`
	Versions []IncidentVersionState `json:"versions"` // those that the incident is about
	Problem  string                 `json:"problem,omitempty"`
}

// IncidentVersionState is a version and its state now.
type IncidentVersionState struct {
	Version uint32 `json:"version"`
	State   string `json:"state"`
}

// IncidentDataset is a dataset that held values under the incident's versions, or may have. Held is the count when the
// incident's job came to it, Remaining that of now; null means that the dataset could not be counted then, or now, and
// Unknown says why. Removed says that the dataset isn't registered any more; Remaining is 0 then if its removal counted nothing
// under the versions, and null if it counted some, or nobody counted.
type IncidentDataset struct {
	Dataset   string         `json:"dataset"`
	Held      []IncidentHeld `json:"held"`
	Job       string         `json:"job,omitempty"` // that moves the values
	JobState  string         `json:"jobState,omitempty"`
	Remaining *int64         `json:"remaining"`
	Unknown   string         `json:"unknown,omitempty"`
	Removed   bool           `json:"removed,omitempty"`
}

// IncidentHeld is a count of values under one version.
type IncidentHeld struct {
	Key     string `json:"key"`
	Version uint32 `json:"version"`
	Rows    *int64 `json:"rows"`
}

// IncidentUse says who could use a version, by the rights of the moment when the incident's job looked, and who did, by the
// audit log until then.
type IncidentUse struct {
	Key     string              `json:"key"`
	Version uint32              `json:"version"`
	Until   time.Time           `json:"until"`
	Could   []IncidentPrincipal `json:"could"`
	Did     []IncidentUser      `json:"did"`
}

// IncidentPrincipal is somebody who may use a key.
type IncidentPrincipal struct {
	Principal string   `json:"principal"`
	Role      string   `json:"role"`
	Actions   []string `json:"actions"`
	Disabled  bool     `json:"disabled,omitempty"`
}

// IncidentUser is somebody who used a version. Events counts operations and batches that certainly did, Possible those
// batches of decryptions and rewraps of the key that name another version, as the last of perhaps several, and the work on
// datasets of the key that he asked for: they may have.
type IncidentUser struct {
	User     string    `json:"user"`
	Events   int64     `json:"events"`
	Possible int64     `json:"possible"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// IncidentEntry is one line of an incident's timeline: a note of a person's, an action or a finding.
type IncidentEntry struct {
	Number int64     `json:"number"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Kind   string    `json:"kind"` // note, action, dataset or use
	Text   string    `json:"text"`
}

// IncidentReport is the evidence of an incident. Every action stands at its place in the audit log, and the checkpoint, which
// is signed with the log's key, covers all of these places: an export of the log verifies offline, and holds the same events.
type IncidentReport struct {
	Generated   time.Time        `json:"generated"`
	GeneratedBy string           `json:"generatedBy"`
	Version     string           `json:"version"` // of keyturn
	StoreID     string           `json:"storeId"`
	Report      IncidentDetail   `json:"report"`
	Actions     []IncidentAction `json:"actions"`
	Checkpoint  string           `json:"checkpoint"` // the signed note
	Shards      []AuditShard     `json:"shards"`
	PublicKey   string           `json:"publicKey"`
}

// IncidentAction is one event of the audit log that belongs to an incident. User and Event, the whole line as an export has
// it, are for callers who may read the log.
type IncidentAction struct {
	Time       time.Time `json:"time"`
	EventType  string    `json:"eventType"`
	Action     string    `json:"action"`
	Resource   string    `json:"resource"`
	KeyVersion uint32    `json:"keyVersion,omitempty"`
	Success    bool      `json:"success"`
	User       string    `json:"user,omitempty"`
	Shard      int       `json:"shard"`
	Index      uint64    `json:"index"`
	Event      string    `json:"event,omitempty"`
}
