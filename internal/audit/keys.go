package audit

import (
	"io"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// originPrefix begins the name of every log. The rest is the store's id, so that a key, and with it every signature, is
// bound to one log and one version of the checkpoint's format.
const originPrefix = "keyturn.audit.v1/"

// Origin is the name of a store's log: the name of its signing key and the first line of its checkpoints.
func Origin(storeID string) string { return originPrefix + storeID }

// Signer signs checkpoints with Ed25519 (golang.org/x/mod/sumdb/note, C2SP signed-note). Its text form is secret.
type Signer = note.Signer

// Key is the public key of one log, safe for concurrent use.
type Key struct {
	verifier note.Verifier
	text     string
}

// GenerateKey makes a log's key pair from a cryptographic source of randomness: the secret text for NewSigner, which is
// to be sealed and wiped, and the public one for ParseKey.
func GenerateKey(random io.Reader, storeID string) (secret []byte, public string, err error) {
	skey, vkey, err := note.GenerateKey(random, Origin(storeID))
	if err != nil {
		return nil, "", fault.Wrap(api.CodeInternal, err, "generating the audit log's signing key")
	}
	return []byte(skey), vkey, nil
}

// NewSigner makes a signer from the secret text. The error doesn't show the text.
func NewSigner(secret []byte) (Signer, error) {
	s, err := note.NewSigner(string(secret))
	if err != nil || !strings.HasPrefix(s.Name(), originPrefix) {
		return nil, fault.New(api.CodeIntegrity, "reading the audit log's signing key: not one of keyturn's")
	}
	return s, nil
}

// ParseKey reads a public key as `audit.pub` holds it: one line, a note verifier key of Ed25519.
func ParseKey(text string) (*Key, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil || !strings.HasPrefix(v.Name(), originPrefix) {
		return nil, fault.New(api.CodeInvalid, "reading the audit log's public key: not a note verifier key of a keyturn log").
			WithField("key").WithNext("use the one line of the audit.pub file in the data directory")
	}
	return &Key{verifier: v, text: text}, nil
}

// String is the public key's text.
func (k *Key) String() string { return k.text }

// Origin is the name of the log that the key signs.
func (k *Key) Origin() string { return k.verifier.Name() }
