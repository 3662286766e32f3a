package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// contended are the SQLSTATEs after which fewer rows, or the same ones later, may well succeed. 57014 is
// statement_timeout here: a cancelled context is looked at first.
var contended = map[string]bool{"55P03": true, "40P01": true, "40001": true, "57014": true, "55006": true}

// refusals are the classes (the first two characters) that condemn a value and not the connection: wrong data,
// constraints, errors raised by triggers and functions, limits as that of an index row.
var refusals = map[string]string{
	"09": "an error of a trigger",
	"22": "the value doesn't fit",
	"23": "a constraint",
	"27": "a change by a trigger",
	"2F": "an error of a function",
	"38": "an error of a function",
	"39": "an error of a function",
	"42": "an error of a trigger or a right that is missing",
	"44": "a check option",
	"54": "a limit of the database",
	"P0": "an error raised by a trigger",
}

// explain turns an error of the server or the connection into one of the house. PostgreSQL's messages and details quote
// values ("Key (ssn)=(…)"), so only the code and names from the catalogue are taken over.
func explain(ctx context.Context, err error, doing string) error {
	var pg *pgconn.PgError
	switch {
	case ctx.Err() != nil:
		return fault.Wrap("", ctx.Err(), doing)
	case !errors.As(err, &pg):
		return fault.Wrap(api.CodeUnavailable, err, doing+": the connection broke")
	case contended[pg.Code]:
		return fmt.Errorf("%s: %w (SQLSTATE %s)", doing, reencrypt.ErrContended, pg.Code)
	case pg.Code == "42P01" || pg.Code == "42703":
		return fault.Wrapf(api.CodeNotFound, err, "%s: the table or one of its columns is gone (SQLSTATE %s)", doing, pg.Code)
	case pg.Code == "42501":
		return fault.Wrapf(api.CodeDenied, err, "%s: the user of the database URL isn't allowed to (SQLSTATE %s)", doing, pg.Code)
	case pg.Code == "53100":
		return fault.Wrapf(api.CodeUnavailable, err, "%s: the database's disk is full", doing)
	}
	return fault.Wrapf(api.CodeUnavailable, err, "%s: the database answers SQLSTATE %s", doing, pg.Code)
}

// explainSwap is explain for a write: what condemns the rows becomes a *reencrypt.Refusal.
func explainSwap(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if ctx.Err() == nil && errors.As(err, &pg) && !contended[pg.Code] && pg.Code != "42P01" && pg.Code != "42703" {
		if why, ok := refusals[class(pg.Code)]; ok {
			reason := "the database refused it: " + why
			if pg.ConstraintName != "" {
				reason += fmt.Sprintf(" %q", pg.ConstraintName)
			}
			return &reencrypt.Refusal{Reason: reason + " (SQLSTATE " + pg.Code + ")"}
		}
	}
	return explain(ctx, err, "writing a page")
}

// class is the first two characters of a SQLSTATE, whatever a server calls one.
func class(code string) string { return code[:min(2, len(code))] }
