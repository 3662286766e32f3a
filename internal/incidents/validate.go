package incidents

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// How long texts may be, in bytes. A reason also goes into audit events, which take no more.
const (
	MaxReason  = 1024
	MaxDetails = 16 << 10
)

// DefaultSeverity is that of an emergency where none is said.
const DefaultSeverity = High

// ValidateType says which types there are.
func ValidateType(t Type) error {
	if slices.Contains(Types(), t) {
		return nil
	}
	if t == "" {
		return fault.New(api.CodeInvalid, "the type of the incident is missing").WithField("type").WithNext("use one of " + join(Types()))
	}
	return fault.New(api.CodeInvalid, "the type of the incident is unknown").WithField("type").WithNext("use one of " + join(Types()))
}

// ValidateSeverity says which severities there are.
func ValidateSeverity(s Severity) error {
	if slices.Contains(Severities(), s) {
		return nil
	}
	if s == "" {
		return fault.New(api.CodeInvalid, "the severity of the incident is missing").WithField("severity").WithNext("use one of " + join(Severities()))
	}
	return fault.New(api.CodeInvalid, "the severity of the incident is unknown").WithField("severity").WithNext("use one of " + join(Severities()))
}

// ValidateReason wants one line of text.
func ValidateReason(text string) error {
	if strings.TrimSpace(text) == "" {
		return fault.New(api.CodeInvalid, "a reason is missing").WithField("reason").WithNext("say --reason WHY: it is kept in the incident and in the audit log")
	}
	if strings.ContainsAny(text, "\r\n\t") {
		return fault.New(api.CodeInvalid, "the reason has more than one line").WithField("reason").WithNext("put the rest into the details")
	}
	return plain("reason", text, MaxReason)
}

// ValidateText checks details and notes: any text of some length, over several lines.
func ValidateText(field, text string) error { return plain(field, text, MaxDetails) }

// plain refuses what would look different on an evidence file from what it is: characters that control a terminal or turn
// the direction of the text around.
func plain(field, text string, most int) error {
	switch {
	case len(text) > most:
		return fault.Newf(api.CodeTooLarge, "the text is longer than %d bytes", most).WithField(field).WithNext("shorten it; what is longer belongs into notes, or a file beside the report")
	case !utf8.ValidString(text):
		return fault.New(api.CodeInvalid, "the text is not UTF-8").WithField(field).WithNext("convert it to UTF-8")
	case strings.ContainsFunc(text, misleads):
		return fault.New(api.CodeInvalid, "the text holds a control character, or one that changes its direction").WithField(field).
			WithNext("write plain text; lines and tabs are fine in details and notes")
	}
	return nil
}

func misleads(r rune) bool {
	if r == '\n' || r == '\t' || r == '\r' {
		return false
	}
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c
}

func join[S ~string](list []S) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}
