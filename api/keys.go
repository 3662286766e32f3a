package api

import "time"

// Key is what `key create|show|rotate|…` print and what GET /v1/keys/{key} answers.
// Period is the cryptoperiod by age in Go's duration form with whole days written as "90d"; empty means no limit by age.
type Key struct {
	Name          string       `json:"name"`
	ID            string       `json:"id"`
	Purpose       string       `json:"purpose"`
	Algorithm     string       `json:"algorithm"`
	Suite         int          `json:"suite"`
	Period        string       `json:"period"`
	MaxOperations uint64       `json:"maxOperations,omitempty"`
	MaxBytes      uint64       `json:"maxBytes,omitempty"`
	Created       time.Time    `json:"created"`
	Versions      []KeyVersion `json:"versions"`
}

// KeyVersion is one generation of a key. Operations and Bytes count what the version protected (reserved in blocks, so
// after a crash they may stand up to one block too high, never too low). Times are UTC with microseconds; absent ones are null.
type KeyVersion struct {
	Version    uint32     `json:"version"`
	State      string     `json:"state"`
	Created    time.Time  `json:"created"`
	Activated  *time.Time `json:"activated"`
	Expires    *time.Time `json:"expires"`
	DestroyAt  *time.Time `json:"destroyAt,omitempty"`
	LastOpened *time.Time `json:"lastOpened,omitempty"`
	Operations uint64     `json:"operations"`
	Bytes      uint64     `json:"bytes"`
	Reason     string     `json:"reason,omitempty"`
	// ForceAskedAt is when somebody asked that the version be destroyed whatever depends on it; a second person has 24 hours
	// from then. Forced says that a second one agreed.
	ForceAskedAt *time.Time `json:"forceAskedAt,omitempty"`
	Forced       bool       `json:"forced,omitempty"`
}

// KeyList is one page of keys in name order. Next is the cursor of the following page, empty on the last.
type KeyList struct {
	Keys []Key  `json:"keys"`
	Next string `json:"next,omitempty"`
}

// CreateKeyRequest makes a key with its first version, active at once. Zero values mean the documented defaults:
// purpose "data", algorithm "aes-256-gcm", suite 1. Period is "1h" to "730d", or "0" for no limit by age; empty = what the
// policies say.
type CreateKeyRequest struct {
	Name          string `json:"name"`
	Purpose       string `json:"purpose,omitempty"`
	Algorithm     string `json:"algorithm,omitempty"`
	Suite         int    `json:"suite,omitempty"`
	Period        string `json:"period,omitempty"`
	MaxOperations uint64 `json:"maxOperations,omitempty"`
	MaxBytes      uint64 `json:"maxBytes,omitempty"`
	// SuspendedDecrypts lets suspended versions still open what they sealed (CRYPTO.md, life of a version). Default false.
	SuspendedDecrypts bool `json:"suspendedDecrypts,omitempty"`
}

// RotateKeyRequest makes a new active version. Reason is required when Emergency is set.
type RotateKeyRequest struct {
	Reason    string `json:"reason,omitempty"`
	Emergency bool   `json:"emergency,omitempty"`
	// IfVersion, when not 0, refuses with conflict unless that version is the active one now.
	IfVersion uint32 `json:"ifVersion,omitempty"`
	// DryRun changes nothing: the answer is the key as it would be, or the refusal.
	DryRun bool `json:"dryRun,omitempty"`
}

// VersionStateRequest is the body of suspend, resume, disable, compromise, destroy and undestroy of one version.
// Version 0 means the active one (suspend, disable, compromise) or the only one in question (resume, undestroy).
type VersionStateRequest struct {
	Version uint32 `json:"version,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// WaitDays is for destroy only: 7 to 30, default 30.
	WaitDays int `json:"waitDays,omitempty"`
	// Force is for destroy only: schedule it although something depends on the version. It takes two people who say so within
	// 24 hours, each with key.force-destroy and a token; the first one's wish is only noted. Both, and their tokens, were made a
	// day before the first one asks, and neither made the other or issued a token of it; denied otherwise.
	Force bool `json:"force,omitempty"`
}

// DestroyDueRequest has executed what is due of the scheduled destructions.
type DestroyDueRequest struct {
	DryRun bool `json:"dryRun,omitempty"`
	// Unwatched is said by who knows that the date is right: what is due by the clock is destroyed although keyturn didn't run for all
	// of the waiting time, as it hardly does where there are only commands. It wants a Reason, and both are recorded.
	Unwatched bool   `json:"unwatched,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// DestroyDue is what `key destroy --due` prints.
type DestroyDue struct {
	Job    string           `json:"job"` // empty when nothing is due, and for a dry run
	State  string           `json:"state"`
	DryRun bool             `json:"dryRun,omitempty"`
	Due    []DueDestruction `json:"due"`
}

// DueDestruction is a version whose waiting time is over.
type DueDestruction struct {
	Key       string    `json:"key"`
	Version   uint32    `json:"version"`
	DestroyAt time.Time `json:"destroyAt"`
	// WaitSeconds is for how long keyturn must still run before it destroys the version, whatever the clock says.
	WaitSeconds int64 `json:"waitSeconds,omitempty"`
}

// EncryptRequest seals Plaintext (base64 in JSON) bound to Context.
type EncryptRequest struct {
	Plaintext []byte            `json:"plaintext"`
	Context   map[string]string `json:"context,omitempty"`
}

// EncryptResponse carries the kt1. text and the version that sealed it.
type EncryptResponse struct {
	Ciphertext string `json:"ciphertext"`
	Version    uint32 `json:"version"`
}

// DecryptRequest opens Ciphertext; Context must equal the one it was sealed with.
type DecryptRequest struct {
	Ciphertext string            `json:"ciphertext"`
	Context    map[string]string `json:"context,omitempty"`
}

// DecryptResponse carries the plaintext (base64 in JSON) and the version it stood under.
type DecryptResponse struct {
	Plaintext []byte `json:"plaintext"`
	Version   uint32 `json:"version"`
}

// RewrapRequest moves Ciphertext to the current version; the plaintext never leaves keyturn and the context can't change.
type RewrapRequest struct {
	Ciphertext string            `json:"ciphertext"`
	Context    map[string]string `json:"context,omitempty"`
}

// RewrapResponse carries the new text, its version and the version it came from (equal when it was current already).
type RewrapResponse struct {
	Ciphertext  string `json:"ciphertext"`
	Version     uint32 `json:"version"`
	FromVersion uint32 `json:"fromVersion"`
}

// EncryptBatchRequest and its siblings hold at most MaxBatchItems items. Each item succeeds or fails alone.
type EncryptBatchRequest struct {
	Items []EncryptRequest `json:"items"`
}

// DecryptBatchRequest: see EncryptBatchRequest.
type DecryptBatchRequest struct {
	Items []DecryptRequest `json:"items"`
}

// RewrapBatchRequest: see EncryptBatchRequest.
type RewrapBatchRequest struct {
	Items []RewrapRequest `json:"items"`
}

// MaxBatchItems bounds one batch; MaxPlaintext bounds one plaintext in bytes; MaxBody bounds every request body in bytes.
const (
	MaxBatchItems = 1000
	MaxPlaintext  = 512 << 10
	MaxBody       = 1 << 20
)

// BatchError is why one item of a batch failed.
type BatchError struct {
	Code    Code   `json:"code"`
	Message string `json:"message,omitempty"`
}

// EncryptBatchItem is either an EncryptResponse or an error.
type EncryptBatchItem struct {
	Ciphertext string      `json:"ciphertext,omitempty"`
	Version    uint32      `json:"version,omitempty"`
	Error      *BatchError `json:"error,omitempty"`
}

// DecryptBatchItem is either a DecryptResponse or an error.
type DecryptBatchItem struct {
	Plaintext []byte      `json:"plaintext,omitempty"`
	Version   uint32      `json:"version,omitempty"`
	Error     *BatchError `json:"error,omitempty"`
}

// RewrapBatchItem is either a RewrapResponse or an error.
type RewrapBatchItem struct {
	Ciphertext  string      `json:"ciphertext,omitempty"`
	Version     uint32      `json:"version,omitempty"`
	FromVersion uint32      `json:"fromVersion,omitempty"`
	Error       *BatchError `json:"error,omitempty"`
}

// EncryptBatchResponse answers item by item, in order.
type EncryptBatchResponse struct {
	Items []EncryptBatchItem `json:"items"`
}

// DecryptBatchResponse answers item by item, in order.
type DecryptBatchResponse struct {
	Items []DecryptBatchItem `json:"items"`
}

// RewrapBatchResponse answers item by item, in order.
type RewrapBatchResponse struct {
	Items []RewrapBatchItem `json:"items"`
}

// DataKeyRequest asks for a random data key of Bytes length (16 to 64, default 32), wrapped under the active version and Context.
type DataKeyRequest struct {
	Bytes   int               `json:"bytes,omitempty"`
	Context map[string]string `json:"context,omitempty"`
}

// DataKeyResponse carries the data key in clear, this once, and sealed (open it again with decrypt).
type DataKeyResponse struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
	Version    uint32 `json:"version"`
}

// DeriveRequest derives Length bytes (16 to 64, default 32) deterministically from label, key version and context.
// Version 0 means the active one; keep the answered version to derive the same key later.
type DeriveRequest struct {
	Label   string            `json:"label"`
	Version uint32            `json:"version,omitempty"`
	Length  int               `json:"length,omitempty"`
	Context map[string]string `json:"context,omitempty"`
}

// DeriveResponse is a key and the version it was derived from.
type DeriveResponse struct {
	Key     []byte `json:"key"`
	Version uint32 `json:"version"`
}

// ImportKeyRequest makes a key whose first version is material from elsewhere (32 bytes), or adds it as the next,
// active version when the key exists. Version, when not 0, is the number that the material is to get: any other is a
// conflict. Several generations come in in their order that way, and never twice.
type ImportKeyRequest struct {
	Material  []byte `json:"material"`
	Version   uint32 `json:"version,omitempty"`
	Purpose   string `json:"purpose,omitempty"`
	Algorithm string `json:"algorithm,omitempty"`
	Suite     int    `json:"suite,omitempty"`
	Period    string `json:"period,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// ExportKeyRequest asks for the material of one version in clear; needs key.export and a reason.
type ExportKeyRequest struct {
	Version uint32 `json:"version,omitempty"`
	Reason  string `json:"reason"`
}

// ExportKeyResponse carries raw material (base64 in JSON).
type ExportKeyResponse struct {
	Material []byte `json:"material"`
	Version  uint32 `json:"version"`
}

// Inspection is what a ciphertext says of itself without any key. Bytes is the plaintext's length.
type Inspection struct {
	Format  int    `json:"format"`
	Suite   int    `json:"suite"`
	Key     string `json:"key"`
	KeyID   string `json:"keyId"`
	Version uint32 `json:"version"`
	Bytes   int    `json:"bytes"`
}

// InspectRequest asks what a ciphertext is.
type InspectRequest struct {
	Ciphertext string `json:"ciphertext"`
}
