package audit

import "time"

// EventType is what kind of thing happened: the event_type of the exported line. The list is closed, so that a
// collector's rules can be complete.
type EventType string

// The event types of keyturn. Which verbs (Event.Action) belong to a type is the business of the room that records.
const (
	SecretAccess       EventType = "secret_access"
	SecretWrite        EventType = "secret_write"
	SecretDelete       EventType = "secret_delete"
	ConfigRead         EventType = "config_read"
	ConfigWrite        EventType = "config_write"
	VaultAccess        EventType = "vault_access"
	AuthSuccess        EventType = "auth_success"
	AuthFailure        EventType = "auth_failure"
	PermissionDenied   EventType = "permission_denied"
	ValidationFailure  EventType = "validation_failure"
	KeyCreate          EventType = "key_create"
	KeyUse             EventType = "key_use"
	KeyRotation        EventType = "key_rotation"
	KeyState           EventType = "key_state"
	KeyDerive          EventType = "key_derive"
	KeyExport          EventType = "key_export"
	KeyBackup          EventType = "key_backup"
	KeyRestore         EventType = "key_restore"
	BackupVerification EventType = "backup_verification"
	Reencryption       EventType = "reencryption"
	Incident           EventType = "incident"
	EmergencyAccess    EventType = "emergency_access"
	Alert              EventType = "alert"
	Reporting          EventType = "report"
	System             EventType = "system"
)

// EventTypes returns the closed list in the order in which the documentation names it.
func EventTypes() []EventType {
	return []EventType{
		SecretAccess, SecretWrite, SecretDelete, ConfigRead, ConfigWrite, VaultAccess, AuthSuccess, AuthFailure,
		PermissionDenied, ValidationFailure, KeyCreate, KeyUse, KeyRotation, KeyState, KeyDerive, KeyExport, KeyBackup,
		KeyRestore, BackupVerification, Reencryption, Incident, EmergencyAccess, Alert, Reporting, System,
	}
}

// Event is one line of the audit log. Empty strings and zero numbers are left out of the line, except those that every
// line carries: timestamp, event_type, action, success, user_id, resource, process_id and environment.
//
// No field may ever take a secret, a request body or a header (promise P3). The fields are strings, numbers, booleans
// and times, and TestAdvisory_CVE_2025_62513 keeps it so.
type Event struct {
	Time        time.Time // when, in UTC; written with six digits of a second
	Type        EventType // from the closed list
	Action      string    // the verb in the past tense or the operation's name: "rotated", "encrypt", "denied"
	Success     bool      // whether the operation did what was asked
	UserID      string    // the principal's name, "anonymous" before anybody was known, "system" for keyturn itself
	Role        string    // the role that the principal held at that moment
	Resource    string    // "key/phi", "dataset/patients", …
	KeyVersion  uint32    // the version that was used or made; 0 = none
	Reason      string    // why, in the caller's words
	RequestID   string    // joins the event with the answer's X-Request-Id
	SourceIP    string    // the peer's address without port; empty for the unix socket and for embedded use
	Details     Details   // what else is worth knowing, from a closed set
	ProcessID   int       // of the keyturn process
	Environment string    // "production", "development", …: from the configuration
}

// Details is the closed set of facts that an event may carry beside its main fields. A zero field is left out of the
// line. Adding a field here means adding it at the end of its group, and to the two tables of the codec; old verifiers
// accept details that they don't know.
type Details struct {
	// Who and how.
	Source    string // where the operation came from: "api", "scheduler", "cli", "system"
	Method    string // how the caller was recognised: "token", "peer", "embedded", "internal"
	Principal string // the principal that was acted upon, by name
	OrderedBy string // who had keyturn itself do it, by name: who opened the incident
	Role      string // the role that was given to it
	Token     string // a token's public id; never the token
	Node      string // the node's name

	// How it went.
	Code      string // the stable error code when Success is false
	Field     string // the input field at fault
	State     string // the state that was reached
	FromState string // the state that was left

	// Keys.
	Key              string // a second key's name, e.g. in a sweep over several
	Purpose          string
	Algorithm        string
	OldVersion       uint32
	NewVersion       uint32
	NextRotationDue  time.Time // written to the second
	DestroyAt        time.Time // written to the second
	ComplianceStatus string    // "compliant", "due_soon", "overdue"
	KEK              string    // a key-encryption key's id
	MasterKey        string    // a master key's URL as it may be printed
	Label            string    // of a derivation
	Length           uint64    // bytes asked for or produced
	Context          string    // the encryption context as the text of one flat JSON object of strings; written as that object
	Emergency        bool      // done as an emergency
	Escrow           string    // a set of escrow shares, by its public name
	Threshold        uint64    // how many of its shares open the store
	Shares           uint64    // how many there are

	// Bulk work: one event with counts, never one per row.
	Items      uint64
	Failed     uint64
	Rows       uint64
	Changed    uint64
	Skipped    uint64
	Conflicts  uint64
	Opened     uint64 // values that opened; of a verification, all that it vouches for
	Plaintext  uint64
	Unreadable uint64
	Dataset    string
	Table      string
	Column     string
	Job        string
	Kind       string // of a job
	From       string // the format of another system from which values were taken over; "plaintext" where somebody said that they are none
	Candidates string // how many of them opened under which candidate key, by fingerprint: "fingerprint=count …"
	Moved      string // at least how many rows were moved from which version: "phi:1=900 phi:2=0 …"

	// The log itself and the process.
	Events   uint64 // the size of the log
	Version  string // of keyturn
	Count    uint64 // how many of what the action says
	Duration uint64 // milliseconds

	// Secrets (a later room): the only two forms in which a value may appear.
	ValueMasked string
	ValueHash   string

	// Incidents and emergency access (later rooms).
	Incident string
	Scope    string
	Severity string // of an incident: "low", "medium", "high", "critical"
}
