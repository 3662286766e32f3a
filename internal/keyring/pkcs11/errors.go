//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"errors"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// isError says whether err is one of the module's return values.
func isError(err error, values ...uint) bool {
	var e p11.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, v := range values {
		if uint(e) == v {
			return true
		}
	}
	return false
}

// failed is what a module's return value means to people when nothing more exact is known. The name of the value comes
// from a fixed table.
func failed(what string, err error) *fault.Error {
	var e p11.Error
	if errors.As(err, &e) {
		what += ": " + e.Error()
	}
	return fault.Wrap(api.CodeUnavailable, err, what).WithNext("check that the HSM is reachable and its token there: keyturn master verify")
}

// isFault says whether an error is final, and no word of the module's: see connection.
func isFault(err error) bool {
	var e *fault.Error
	return errors.As(err, &e)
}

// left is an error when nobody waits for the answer any more.
func left(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap("", err, "using a PKCS#11 master key")
	}
	return nil
}

var errClosed = fault.New(api.CodeUnavailable, "using a PKCS#11 master key: it was closed")
