package api

import "time"

// Problem is the error body of every route (RFC 9457, application/problem+json). Type is always "about:blank"; Code is
// stable and from the closed list; Field names what was wrong; Next says what to do. A value of the request never appears.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      Code   `json:"code"`
	Detail    string `json:"detail,omitempty"`
	Field     string `json:"field,omitempty"`
	Next      string `json:"next,omitempty"`
	RequestID string `json:"requestId,omitempty"`
}

// MasterKey is one configured master key. Kind is "wraps", "holds" or "escrow"; OK says that it opens every KEK.
type MasterKey struct {
	URL      string `json:"url"`
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	OK       bool   `json:"ok"`
	Detail   string `json:"detail,omitempty"` // why not
	Next     string `json:"next,omitempty"`   // what helps
}

// MasterKeyElsewhere is a master key that KEKs are wrapped under and that isn't among those of the node that answers: it is
// configured on another one, or was forgotten. KEKs is how many.
type MasterKeyElsewhere struct {
	URL         string `json:"url"`
	Fingerprint string `json:"fingerprint"`
	KEKs        int    `json:"keks"`
	Detail      string `json:"detail,omitempty"`
}

// MasterKeyList is what `master list|verify` print.
type MasterKeyList struct {
	MasterKeys []MasterKey          `json:"masterKeys"`
	Elsewhere  []MasterKeyElsewhere `json:"elsewhere,omitempty"`
}

// MasterKeyRequest names a master key by URL; one to remove that only other nodes have, also by its fingerprint. Also names
// more of them that are removed in the same step: several that are lost would otherwise keep one another from going, as those
// that stay must be there. OtherNodes must be true to remove one while other nodes run on the store.
type MasterKeyRequest struct {
	URL        string   `json:"url"`
	Also       []string `json:"also,omitempty"`
	OtherNodes bool     `json:"otherNodes,omitempty"`
}

// MasterRotation is what `master rotate|add|remove` print: KEKs rewrapped, and the master keys now. OtherNodes are those that
// ran when a master key was removed.
type MasterRotation struct {
	Rewrapped  int                  `json:"rewrapped"`
	MasterKeys []MasterKey          `json:"masterKeys"`
	Elsewhere  []MasterKeyElsewhere `json:"elsewhere,omitempty"`
	OtherNodes []string             `json:"otherNodes,omitempty"`
}

// RotateMasterRequest makes a new generation of every KEK (KEKs true), or only wraps the KEKs anew under the configured master keys.
type RotateMasterRequest struct {
	KEKs bool `json:"keks,omitempty"`
}

// Escrow is the store's set of escrow shares: any Threshold of the Shares give the master key of fingerprint Set. Verified is
// when enough of them were last seen to do so, null for never.
type Escrow struct {
	Set       string     `json:"set"`
	Threshold int        `json:"threshold"`
	Shares    int        `json:"shares"`
	Created   time.Time  `json:"created"`
	Verified  *time.Time `json:"verified"`
}

// SplitEscrowRequest prepares a new set of escrow shares. Where there is one, Replace must be true: its shares open nothing
// any more once the new set is committed.
type SplitEscrowRequest struct {
	Shares    int  `json:"shares"`
	Threshold int  `json:"threshold"`
	Replace   bool `json:"replace,omitempty"`
}

// EscrowShares is a prepared set with the text of every share (base64 in JSON), in this one answer and never again. It
// counts when it is committed, and until then the set before does.
type EscrowShares struct {
	Set       string        `json:"set"`
	Threshold int           `json:"threshold"`
	Shares    []EscrowShare `json:"shares"`
}

// CommitEscrowRequest says that the shares of a prepared set are kept where they are safe, so that it may count.
type CommitEscrowRequest struct {
	Set string `json:"set"`
}

// EscrowSplit is a set that counts from now on. The shares of the one that it replaced open nothing any more.
type EscrowSplit struct {
	Set       string `json:"set"`
	Threshold int    `json:"threshold"`
	Shares    int    `json:"shares"`
	Replaced  string `json:"replaced,omitempty"`
	Rewrapped int    `json:"rewrapped"` // KEKs
}

// EscrowShare is one person's part.
type EscrowShare struct {
	Index int    `json:"index"`
	Text  []byte `json:"text"`
}

// EscrowVerifiedRequest says that enough shares of a set were seen to give its key.
type EscrowVerifiedRequest struct {
	Set string `json:"set"`
}

// Doctor is the health of a store.
type Doctor struct {
	OK     bool          `json:"ok"`
	Checks []DoctorCheck `json:"checks"`
}

// DoctorCheck is one check: severity "error" fails, "warning" fails only with --strict, "info" never.
type DoctorCheck struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Severity string `json:"severity"`
	Detail   string `json:"detail"`
	Fix      string `json:"fix"`
}

// Status is one screen of the whole store.
type Status struct {
	Version     string         `json:"version"`
	Store       string         `json:"store"`
	StoreID     string         `json:"storeId"`
	Environment string         `json:"environment"`
	Keys        int            `json:"keys"`
	Versions    map[string]int `json:"versions"` // by state
	Overdue     []string       `json:"overdue"`
	Jobs        map[string]int `json:"jobs"` // by state
	Datasets    int            `json:"datasets"`
	Principals  int            `json:"principals"`
	Incidents   map[string]int `json:"incidents"` // by state: open, closed
	Audit       AuditHead      `json:"audit"`
	FIPS        FIPS           `json:"fips"`
	Started     time.Time      `json:"started"`
}

// FIPS says how the Go Cryptographic Module runs.
type FIPS struct {
	Enabled  bool   `json:"enabled"`
	Enforced bool   `json:"enforced"`
	Version  string `json:"version"`
}

// AuditHead is the size of the log now and of the newest signed checkpoint.
type AuditHead struct {
	Events         uint64     `json:"events"`
	CheckpointSize uint64     `json:"checkpointSize"`
	CheckpointAt   *time.Time `json:"checkpointAt"`
}

// AuditShard is one Merkle tree: Root is base64 of SHA-256 (RFC 6962 shape).
type AuditShard struct {
	Shard int    `json:"shard"`
	Size  uint64 `json:"size"`
	Root  string `json:"root"`
}

// AuditVerification is what `audit verify` prints. Bad names the first bad place when not OK.
type AuditVerification struct {
	OK         bool         `json:"ok"`
	Events     uint64       `json:"events"`
	Shards     []AuditShard `json:"shards"`
	Checkpoint string       `json:"checkpoint,omitempty"` // the signed note that was checked
	Bad        string       `json:"bad,omitempty"`
}

// AuditCheckpoint is a signed note (C2SP tlog-checkpoint's signature format, our own multi-shard body).
type AuditCheckpoint struct {
	Note      string       `json:"note"`
	Shards    []AuditShard `json:"shards"`
	Time      time.Time    `json:"time"`
	PublicKey string       `json:"publicKey"` // note verifier key
}

// Principal is somebody or something that may ask. Scope lists resources ("*", "key/*", "key/phi"); Allow lists extra actions beyond the role.
type Principal struct {
	Principal string    `json:"principal"`
	ID        string    `json:"id"`
	Role      string    `json:"role"`
	Scope     []string  `json:"scope"`
	Allow     []string  `json:"allow,omitempty"`
	Disabled  bool      `json:"disabled"`
	Created   time.Time `json:"created"`
	Token     string    `json:"token,omitempty"` // only in the answer that made it
}

// PrincipalList is every principal in name order.
type PrincipalList struct {
	Principals []Principal `json:"principals"`
}

// CreatePrincipalRequest makes a principal and its first token.
type CreatePrincipalRequest struct {
	Name  string   `json:"name"`
	Role  string   `json:"role"`
	Scope []string `json:"scope,omitempty"`
	Allow []string `json:"allow,omitempty"`
}

// Role is a named set of actions.
type Role struct {
	Role        string   `json:"role"`
	Description string   `json:"description"`
	Actions     []string `json:"actions"`
}

// RoleList is every role.
type RoleList struct {
	Roles []Role `json:"roles"`
}

// WhoAmI is the caller as the server sees it.
type WhoAmI struct {
	Principal string   `json:"principal"`
	Role      string   `json:"role"`
	Method    string   `json:"method"` // token, peer, embedded
	Actions   []string `json:"actions"`
	Scope     []string `json:"scope"`
}
