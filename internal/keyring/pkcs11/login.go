//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"crypto/sha256"
	"crypto/subtle"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// logIn proves the PIN to a token, once for all of a process's sessions with it.
//
// Tokens lock themselves after a few wrong PINs, and everything here tries again: the ring, the doctor, the next command.
// So a PIN that a token refused is remembered, as a hash, and not sent again before it is another one; and when the token
// says that one try is left, that one is kept for people.
func (d *Driver) logIn(lib library, s p11.SessionHandle, at address, info p11.TokenInfo) error {
	const what = "logging in to the HSM's token"
	pin, err := d.pin(at)
	if err != nil {
		return err
	}
	defer pin.Destroy()
	token := at.module + "\x00" + info.SerialNumber + "\x00" + info.Label
	sum := sha256.Sum256(append([]byte(token+"\x00"), pin.Expose()...))
	d.login.Lock()
	defer d.login.Unlock()
	switch last, ok := d.refused[token]; {
	case info.Flags&p11.CKF_USER_PIN_INITIALIZED == 0:
		return fault.New(api.CodeWrongState, what+": it has no user PIN yet").WithField("token").WithNext("set one as the token's security officer")
	case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return errLocked
	case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return fault.New(api.CodeDenied, what+": one more wrong PIN would lock it, so keyturn doesn't try").WithField("pin-source").
			WithNext("make sure of the PIN, log in once by another tool (pkcs11-tool --login --test), then try again")
	case ok && subtle.ConstantTimeCompare(last[:], sum[:]) == 1:
		return errWrongPIN
	}
	err = lib.Login(s, p11.CKU_USER, string(pin.Expose()))
	switch {
	case err == nil:
		delete(d.refused, token)
		return nil
	case isError(err, p11.CKR_USER_ALREADY_LOGGED_IN): // by another of our sessions
		return nil
	case isError(err, p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE):
		d.refused[token] = sum
		return errWrongPIN
	case isError(err, p11.CKR_PIN_LOCKED):
		return errLocked
	case isError(err, p11.CKR_PIN_EXPIRED):
		return fault.New(api.CodeDenied, what+": the PIN must be changed first").WithField("pin-source")
	}
	return failed(what, err)
}

var (
	errWrongPIN = fault.New(api.CodeDenied, "logging in to the HSM's token: the PIN is wrong").WithField("pin-source").
			WithNext("correct the PIN where the URL's pin-source or " + pinVariable + " has it; this one is not sent again")
	errLocked = fault.New(api.CodeDenied, "logging in to the HSM's token: its PIN is locked after too many wrong ones").WithField("pin-source").
			WithNext("have the token's security officer unlock it by setting the PIN anew")
)
