package store

import (
	"sync/atomic"

	"github.com/keyturn/keyturn/internal/fault"
)

// Op is a moment at which a hook is asked whether to fail.
type Op int

// The moments. Each statement of a transaction is one OpStatement.
const (
	OpBegin     Op = iota // before a transaction begins
	OpStatement           // before a statement inside of one
	OpCommit              // before its commit is asked for
	OpAppend              // before Append's statement
	OpCommitted           // after a commit or an Append has happened and before anybody hears of it
)

// Hooked is a second handle on the same database that asks hook at every Op; an error of hook takes the place of the
// database's, best a *ProblemError. It is for fault injection (package storetest): with it every scenario is run with
// its first, second, third… statement failing. A disk error is remembered by this handle alone. Close the store itself,
// not the handle.
func (d *Database) Hooked(hook func(Op) error) *Database {
	h := *d
	h.hook, h.sick = hook, new(atomic.Pointer[fault.Error])
	return &h
}

// ask asks the hook, if there is one.
func (d *Database) ask(op Op) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op)
}
