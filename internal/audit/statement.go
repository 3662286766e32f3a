package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// A statement is a document that the log's key vouches for: a note (C2SP signed-note) with this text, every line ended by a
// newline:
//
//	keyturn.audit.v1/5f0c…           the log, as in a checkpoint
//	statement retirement/2 rXxC…=    the kind of document and the SHA-256 of its bytes in standard base64
//
// The word in front of the second line keeps a statement from ever being read as a checkpoint, and one as the other.

// SignStatement signs the bytes of a document.
func SignStatement(s Signer, kind string, document []byte) (string, error) {
	signed, err := note.Sign(&note.Note{Text: statementText(s.Name(), kind, document)}, s)
	if err != nil {
		return "", fault.Wrap(api.CodeInternal, err, "signing a statement")
	}
	return string(signed), nil
}

// VerifyStatement is nil when signed is the key's own signature of this document as this kind, in the one spelling that
// SignStatement produces.
func VerifyStatement(key *Key, kind string, document []byte, signed string) error {
	n, err := note.Open([]byte(signed), note.VerifierList(key.verifier))
	if err != nil || canonicalNote(n) != signed {
		return fault.New(api.CodeIntegrity, "verifying a statement: its signature is not by this log's key")
	}
	if n.Text != statementText(key.Origin(), kind, document) {
		return fault.New(api.CodeIntegrity, "verifying a statement: the signature is not of this document")
	}
	return nil
}

func statementText(log, kind string, document []byte) string {
	sum := sha256.Sum256(document)
	return strings.Join([]string{log, "statement " + kind + " " + base64.StdEncoding.EncodeToString(sum[:]), ""}, "\n")
}
