package mysql

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// contended are the errors after which fewer rows, or the same ones later, may well succeed: a lock that wasn't given
// (1205, 3572), a deadlock or a certification that failed (1213, 1020), a commit that was taken back (1180), a limit of
// time or somebody's KILL QUERY (1969, 3024, 1317).
var contended = map[uint16]bool{1205: true, 3572: true, 1213: true, 1020: true, 1180: true, 1969: true, 3024: true, 1317: true}

// refusals condemn a value and not the connection: what the database won't have, or what a trigger raised.
var refusals = map[uint16]string{
	1048: "a column that must not be null", 1062: "a unique index", 1586: "a unique index", 1406: "the value doesn't fit",
	1264: "the value doesn't fit", 1265: "the value doesn't fit", 1292: "a value of a wrong type", 1366: "the column's character set doesn't have its characters",
	3988: "the column's character set doesn't have its characters", 1118: "the row would be too large", 139: "the row would be too large",
	1216: "a foreign key", 1217: "a foreign key", 1451: "a foreign key", 1452: "a foreign key",
	4025: "a check constraint", 3819: "a check constraint", 3140: "it isn't JSON", 1644: "an error raised by a trigger", 1643: "an error of a trigger",
	1442: "an error of a trigger", 1424: "an error of a trigger", 1305: "a function that is missing, of a trigger or a check",
	1370: "a right that a trigger misses", 1690: "a computation out of range", 1365: "a division by zero", 1364: "a column without a default, in a trigger",
	3105: "a generated column", 1906: "a generated column", 1526: "no partition takes it", 1748: "no partition takes it",
}

// gone and denied are errors about the table, and about our rights to it.
var (
	gone   = map[uint16]bool{1146: true, 1054: true, 1176: true, 1049: true, 1932: true}
	denied = map[uint16]bool{1142: true, 1143: true, 1044: true, 1227: true}
)

// explain turns an error of the server or the connection into one of the house. The server's messages quote values
// ("Duplicate entry '…' for key …"), so only its number is taken over.
func explain(ctx context.Context, err error, doing string) error {
	var my *mysql.MySQLError
	var house *fault.Error
	switch {
	case ctx.Err() != nil:
		return fault.Wrap("", ctx.Err(), doing)
	case errors.As(err, &house):
		return err
	case !errors.As(err, &my):
		return fault.Wrap(api.CodeUnavailable, err, doing+": the connection broke")
	case contended[my.Number]:
		return fmt.Errorf("%s: %w (error %d)", doing, reencrypt.ErrContended, my.Number)
	case gone[my.Number]:
		return fault.Newf(api.CodeNotFound, "%s: the table, its key or one of its columns is gone (error %d)", doing, my.Number)
	case denied[my.Number]:
		return fault.Newf(api.CodeDenied, "%s: the user of the database URL isn't allowed to (error %d)", doing, my.Number)
	case my.Number == 1290 || my.Number == 1836 || my.Number == 1792:
		return fault.Newf(api.CodeUnavailable, "%s: the database takes no writes, it is read-only (error %d)", doing, my.Number)
	case my.Number == 1114 || my.Number == 1021 || my.Number == 3 || my.Number == 1026:
		return fault.Newf(api.CodeUnavailable, "%s: the database's disk is full (error %d)", doing, my.Number)
	}
	return fault.Newf(api.CodeUnavailable, "%s: the database answers error %d", doing, my.Number)
}

// checkName finds the name of a check constraint in a message that holds nothing else, in the forms of MariaDB and MySQL.
var checkName = regexp.MustCompile("^(?:CONSTRAINT `([^`]+)` failed for|Check constraint '([^']+)' is violated)")

// explainSwap is explain for a write: what condemns the rows becomes a *reencrypt.Refusal.
func explainSwap(ctx context.Context, err error) error {
	var my *mysql.MySQLError
	if ctx.Err() == nil && errors.As(err, &my) {
		if why, ok := refusals[my.Number]; ok {
			reason := "the database refused it: " + why
			if m := checkName.FindStringSubmatch(my.Message); m != nil && (my.Number == 4025 || my.Number == 3819) {
				reason += fmt.Sprintf(" %q", m[1]+m[2])
			}
			return &reencrypt.Refusal{Reason: fmt.Sprintf("%s (error %d)", reason, my.Number)}
		}
	}
	return explain(ctx, err, "writing a page")
}
