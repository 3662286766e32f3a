package keys

import "time"

// KEKID names a key-encryption key: 32 lower-case hexadecimal digits, random.
type KEKID string

// KEKPurpose says what a key-encryption key wraps. One per purpose, so that who holds one opens nothing of the others.
type KEKPurpose string

// The purposes of key-encryption keys.
const (
	KEKData     KEKPurpose = "data"     // versions of keys
	KEKAudit    KEKPurpose = "audit"    // the audit log's signing and HMAC keys
	KEKBackup   KEKPurpose = "backup"   // backups
	KEKRecovery KEKPurpose = "recovery" // recovery kits
	KEKSecrets  KEKPurpose = "secrets"  // secrets and connection strings
)

// KEKPurposes lists every purpose; a store has an active KEK for each.
func KEKPurposes() []KEKPurpose {
	return []KEKPurpose{KEKData, KEKAudit, KEKBackup, KEKRecovery, KEKSecrets}
}

// KEK is one generation of a key-encryption key. Older generations stay until nothing is wrapped under them.
type KEK struct {
	ID        KEKID
	Purpose   KEKPurpose
	Version   uint32 // generation within the purpose, from 1
	Active    bool   // what new blobs are wrapped under; one per purpose
	Created   time.Time
	Wrappings []Wrapping // one per master key; any one opens it
}

// Wrapping is a KEK sealed by one master key.
type Wrapping struct {
	MasterID string // the master key's stable fingerprint
	URL      string // where it was configured then; safe to print
	Blob     []byte
}
