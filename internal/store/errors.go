package store

import (
	"context"
	"errors"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// classify is the driver's Classify, with the sorts that don't depend on the driver.
func (b *Backend) classify(err error) Problem {
	var injected *ProblemError
	if errors.As(err, &injected) {
		return injected.Problem
	}
	switch text := err.Error(); { // database/sql has no values for these two
	case text == "sql: database is closed":
		return Gone
	case strings.HasPrefix(text, "sql: Scan error"):
		return Unclassified
	}
	return b.Classify(err)
}

// translate makes a fault of an error of the database. The database's own text may quote values, so it is only reachable
// by errors.As. A context that ended explains every error that came with it; faults pass as they are.
func (b *Backend) translate(ctx context.Context, err error, doing string) error {
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return err
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap("", err, doing+": the database didn't answer in time").WithNext("check that the database runs, is reachable and isn't overloaded")
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		return fault.Wrap("", err, doing)
	}
	p := problems[b.classify(err)]
	e := fault.Wrap(p.Code, err, doing+": "+p.Message)
	e.Next = p.Next
	return e
}

// unknown is ErrCommitUnknown with its cause.
func unknown(cause error) error {
	return fault.Wrap(api.CodeUnavailable, errors.Join(ErrCommitUnknown, cause), ErrCommitUnknown.Message).
		WithNext(ErrCommitUnknown.Next)
}

// notFound and conflict are the two answers that are no failure of the database.
func notFound(what string) error {
	e := fault.New(api.CodeNotFound, "there is no such "+what).WithField(what)
	if next := namedBy[what]; next != "" {
		return e.WithNext(next)
	}
	return e
}

// namedBy says which command names what there is, where people ask for it by name.
var namedBy = map[string]string{
	"key":       "keyturn key list names them",
	"version":   "keyturn key show lists a key's versions",
	"principal": "keyturn principal list names them",
	"policy":    "keyturn policy list names them",
	"dataset":   "keyturn dataset list names them",
	"incident":  "keyturn incident list names them",
	"job":       "see keyturn job list",
}

func taken(what string) error {
	return fault.Newf(api.CodeConflict, "a %s of this name or id exists already", what).WithField(what)
}

func stale(what string) error {
	return fault.Newf(api.CodeConflict, "the %s was changed by somebody else", what).WithField(what).
		WithNext("read it again and decide anew")
}
