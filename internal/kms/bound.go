package kms

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// errSecretContext refuses a context that would carry a secret into the audit log, where contexts stand in clear.
var errSecretContext = fault.New(api.CodeInvalid, "the context holds something that looks like a secret").WithField("context").
	WithNext("the context is written to the audit log in clear: put identifiers into it, such as a row's key")

// marks begin the texts that are refused in a context, with the length from which on they look meant.
var marks = []struct {
	begin string
	body  string // characters that must follow
	count int    // how many of them
}{
	{access.TokenPrefix, "0123456789abcdef", 16},
	{"kt1.", base64URL, 32},
	{"-----BEGIN ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -", 2},
	{"eyJ", base64URL + ".", 20}, // the header of a JSON Web Token (RFC 7519): base64url of {"
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// refuseSecrets looks through the canonical bytes of a context for tokens of ours, ciphertexts of ours, PEM blocks and
// JSON Web Tokens. It can't know every secret; it stops those that are put there by mistake.
func refuseSecrets(bound envelope.Context) error {
	for i := range marks {
		m := &marks[i]
		for rest := []byte(bound); ; {
			at := bytes.Index(rest, []byte(m.begin))
			if at < 0 {
				break
			}
			rest = rest[at+len(m.begin):]
			if looksMeant(rest, m.body, m.count) && (m.begin != "eyJ" || isJWT(rest)) {
				return errSecretContext
			}
		}
	}
	return nil
}

// RefuseSecrets refuses a text that is going to be kept and shown, under the field's name, when something in it looks like
// a secret. It stops what is put there by mistake and is no proof that nothing else is one.
func RefuseSecrets(field, text string) error {
	if refuseSecrets(envelope.Context(text)) == nil {
		return nil
	}
	return fault.New(api.CodeInvalid, "the text holds something that looks like a secret").WithField(field).
		WithNext("it is kept and shown as it stands: say what happened without the token, key or ciphertext itself")
}

func looksMeant(rest []byte, body string, count int) bool {
	if len(rest) < count {
		return false
	}
	for _, c := range rest[:count] {
		if strings.IndexByte(body, c) < 0 {
			return false
		}
	}
	return true
}

// isJWT says whether what follows "eyJ" is the rest of three parts (compact serialisation, RFC 7515 section 3.1), the
// second beginning as JSON does.
func isJWT(rest []byte) bool {
	dot := bytes.IndexByte(rest, '.')
	if dot < 0 || !bytes.HasPrefix(rest[dot+1:], []byte("eyJ")) {
		return false
	}
	return bytes.IndexByte(rest[dot+1:], '.') > 0
}

// bind brings a context into canonical form, and into the text that the audit record shows: one flat JSON object in the
// order of its keys, "" for no context. The text is for single operations; batches and jobs record counts only.
func bind(m map[string]string) (bound envelope.Context, text string, err error) {
	if bound, err = envelope.NewContext(m); err != nil {
		return nil, "", err
	}
	if err := refuseSecrets(bound); err != nil || len(m) == 0 {
		return bound, "", err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, "", fault.Wrap(api.CodeInternal, err, "writing the context's text")
	}
	return bound, strings.TrimSuffix(b.String(), "\n"), nil
}
