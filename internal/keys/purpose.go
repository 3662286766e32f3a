package keys

import (
	"regexp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// Purpose is what a key is for. It goes into the derivation of every message key, so a ciphertext of one purpose never
// opens under another: the purpose of a key can't change.
type Purpose string

// The purposes with a meaning of their own. Others may be made up, under the rule of Validate.
const (
	PurposeData        Purpose = "data"
	PurposePHI         Purpose = "phi" // protected health information
	PurposePII         Purpose = "pii" // personally identifiable information
	PurposeAudit       Purpose = "audit"
	PurposeBackup      Purpose = "backup"
	PurposeCredentials Purpose = "credentials"
)

var purposeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Validate checks the form of a purpose: a lower-case letter, then up to 31 lower-case letters, digits or dashes.
func (p Purpose) Validate() error {
	if !purposeForm.MatchString(string(p)) {
		return fault.New(api.CodeInvalid, "the purpose is not a lower-case letter followed by up to 31 of a-z, 0-9 and -").
			WithField("purpose").WithNext("use data, phi, pii, audit, backup, credentials or a name of your own of that form")
	}
	return nil
}

// Algorithm is how a key protects data.
type Algorithm string

// The algorithms. A key keeps its algorithm for life.
const (
	AES256GCM     Algorithm = "aes-256-gcm"             // suites 1 (standard) and 2 (compact)
	AES256CBCHMAC Algorithm = "aes-256-cbc-hmac-sha256" // suite 4: encrypt-then-MAC, for who must have CBC
)

// suitesOf lists the suites of each algorithm, the default first.
var suitesOf = map[Algorithm][]envelope.Suite{
	AES256GCM:     {envelope.SuiteStandard, envelope.SuiteCompact},
	AES256CBCHMAC: {envelope.SuiteCBC},
}

// Suites lists the ciphertext suites of an algorithm, the default first; nil for an unknown algorithm.
func (a Algorithm) Suites() []envelope.Suite { return suitesOf[a] }

// Validate checks that the algorithm is a known one.
func (a Algorithm) Validate() error {
	if _, ok := suitesOf[a]; !ok {
		return fault.New(api.CodeInvalid, "the algorithm is unknown").WithField("algorithm").
			WithNext("use " + string(AES256GCM) + " or " + string(AES256CBCHMAC))
	}
	return nil
}
