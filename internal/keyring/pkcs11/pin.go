//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// maxPIN is more than any token takes, in bytes.
const maxPIN = 256

// pin reads the PIN, anew at each login: it may have been changed. One line end after it isn't part of it.
func (d *Driver) pin(at address) (*material.Bytes, error) {
	var text []byte
	var err error
	where := "environment variable " + pinVariable
	if at.pinFile != "" {
		where = "file " + at.pinFile
		text, err = readPIN(at.pinFile)
	} else if value, ok := d.Lookup(pinVariable); ok {
		text = []byte(value)
	}
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch {
	case len(text) == 0:
		return nil, fault.New(api.CodeNotFound, "reading the HSM's PIN: "+where+" is empty or not set").WithField("pin-source").
			WithNext("write the PIN into a file of mode 0600 and name it by pin-source=file:/path in the URL, or set " + pinVariable)
	case len(text) > maxPIN || bytes.IndexByte(text, 0) >= 0 || bytes.IndexByte(text, '\n') >= 0:
		clear(text)
		return nil, fault.New(api.CodeInvalid, "reading the HSM's PIN: "+where+" holds something else than one line with a PIN").WithField("pin-source")
	}
	return material.New(text), nil
}

// readPIN checks the file that it has open, as package file does with keys: ours or root's, closed to everybody else.
func readPIN(path string) ([]byte, error) {
	what := "reading the HSM's PIN in file " + path
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.Wrap(api.CodeNotFound, err, what).WithField("pin-source")
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.Wrap(api.CodeDenied, err, what).WithField("pin-source").WithNext("run as the user that owns it")
	case err != nil:
		return nil, fault.Wrap(api.CodeUnavailable, err, what).WithField("pin-source")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, what).WithField("pin-source")
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(api.CodeInvalid, what+": it isn't a regular file").WithField("pin-source")
	}
	if info.Mode().Perm()&0o077 != 0 || !ours(info) {
		return nil, fault.Newf(api.CodeWrongState, "%s: others can read or change it (mode %04o)", what, info.Mode().Perm()).WithField("pin-source").
			WithNext("chown it to the user that runs keyturn and chmod 600 " + path + "; if others may have read it, change the PIN")
	}
	text, err := io.ReadAll(io.LimitReader(f, 2*maxPIN))
	if err != nil {
		clear(text)
		return nil, fault.Wrap(api.CodeUnavailable, err, what).WithField("pin-source")
	}
	return text, nil
}
