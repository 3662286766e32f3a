package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Result codes of SQLite (https://www.sqlite.org/rescode.html). The low byte is the primary one.
const (
	codeError      = 1
	codePerm       = 3
	codeBusy       = 5
	codeLocked     = 6
	codeReadOnly   = 8
	codeInterrupt  = 9
	codeIOErr      = 10
	codeCorrupt    = 11
	codeFull       = 13
	codeCantOpen   = 14
	codeTooBig     = 18
	codeConstraint = 19
	codeMismatch   = 20
	codeAuth       = 23
	codeNotADB     = 26

	codeShmSize    = codeIOErr | 19<<8
	codeTrigger    = codeConstraint | 7<<8
	codeDataType   = codeConstraint | 12<<8
	codeCheck      = codeConstraint | 1<<8
	codeNotNull    = codeConstraint | 5<<8
	codeUnique     = codeConstraint | 8<<8
	codePrimaryKey = codeConstraint | 6<<8
)

// errLocked is what patiently waits for to go away.
var errLocked = reencrypt.ErrContended

// codeOf is SQLite's result code; 0 for an error that isn't SQLite's.
func codeOf(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// explain turns an error of SQLite into one of the house. Its messages can quote values (RAISE in a trigger), so none of
// their words are taken over.
func explain(ctx context.Context, err error, doing, path string) error {
	if ctx.Err() != nil {
		return fault.Wrap("", ctx.Err(), doing)
	}
	unavailable := func(format string, args ...any) *fault.Error {
		return fault.Wrapf(api.CodeUnavailable, err, doing+": "+format, args...)
	}
	code := codeOf(err)
	if code == codeShmSize {
		code = codeFull // the index of the log didn't grow
	}
	switch code & 0xff {
	case codeBusy, codeLocked:
		return fmt.Errorf("%s: %w (SQLite %d)", doing, reencrypt.ErrContended, code)
	case codeNotADB:
		return fault.Wrapf(api.CodeInvalid, err, "%s: %s is not a SQLite database, or an encrypted one", doing, path).WithField("db")
	case codePerm, codeCantOpen, codeAuth:
		return fault.Wrapf(api.CodeDenied, err, "%s: SQLite can't open %s or the files beside it", doing, path).WithField("db").
			WithNext("let the user that keyturn runs as read and write the file, its directory, and the -wal and -shm files beside it")
	case codeReadOnly:
		return unavailable("%s is read-only", path).
			WithNext("let the user that keyturn runs as write the file and its directory, and look whether the disk is mounted read-only")
	case codeFull:
		return unavailable("no space is left for %s", path).WithNext("free some space, then run the command again")
	case codeCorrupt:
		return unavailable("%s is damaged", path).WithNext("stop the application, run PRAGMA integrity_check, and restore a backup")
	case codeIOErr:
		return unavailable("the disk of %s reports an error", path).WithNext("look at the system's log; restore a backup if the disk is failing")
	case codeError:
		return fault.Wrapf(api.CodeNotFound, err, "%s: the table or one of its columns is gone or was changed", doing).
			WithNext("look at the table; add the dataset anew if its columns have other names now")
	}
	return unavailable("SQLite answers %d", code)
}

// refusalOf is why SQLite won't have a row, nil when it isn't about the row. An error without a code of its own comes from
// a trigger, a check or a generated column that can't do with what it got; or the table is gone, which the caller rules out.
func refusalOf(err error) *reencrypt.Refusal {
	code, why := codeOf(err), ""
	switch code & 0xff {
	case codeConstraint:
		why = constraint(code, err)
	case codeTooBig:
		why = "the value is too long"
	case codeMismatch:
		why = "the value's type doesn't fit"
	case codeError:
		why = "an error of a trigger, a check or a generated column"
	default:
		return nil
	}
	return &reencrypt.Refusal{Reason: fmt.Sprintf("the database refused it: %s (SQLite %d)", why, code)}
}

// constraint names the constraint where SQLite's message holds a name of the catalogue and nothing else; a trigger's
// message is the trigger's own.
func constraint(code int, err error) string {
	switch code {
	case codeTrigger:
		return "a trigger"
	case codeDataType:
		return "the table is STRICT and the value's type doesn't fit"
	case codeCheck, codeNotNull, codeUnique, codePrimaryKey:
		_, rest, ok := strings.Cut(err.Error(), "constraint failed: ")
		if kind, name, named := strings.Cut(rest, "constraint failed: "); ok && named {
			name, _, _ = strings.Cut(name, " (")
			return fmt.Sprintf("%s constraint %q", strings.TrimSpace(kind), name)
		}
	}
	return "a constraint"
}
