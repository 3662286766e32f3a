package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// Generate writes a new random key where the URL says, mode 0600 whatever the umask, and returns once file and folder are
// on disk. It never replaces a file (conflict). A crash leaves either no file of that name or the whole key; a file
// named .master-*.tmp beside it may be removed.
func (Driver) Generate(_ context.Context, raw string) error {
	path, err := pathOf(raw)
	if err != nil {
		return err
	}
	m := material.Random(envelope.KeySize)
	defer m.Destroy()
	text := append(keyring.AppendText(nil, m), '\n')
	defer clear(text)
	dir := filepath.Dir(path)
	tmp, err := writeTemporary(dir, text)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing master key file "+path)
	}
	defer os.Remove(tmp)
	// A link, unlike a rename, fails when the name is taken.
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return fault.New(api.CodeConflict, "writing master key file "+path+": a file of that name is there").
			WithNext("choose another name; replacing a master key that is in use would lock the store")
	} else if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing master key file "+path)
	}
	return syncFolder(dir)
}

// writeTemporary writes text to a new file in dir, through to the disk. os.CreateTemp makes it 0600.
func writeTemporary(dir string, text []byte) (name string, err error) {
	f, err := os.CreateTemp(dir, ".master-*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncFolder makes a new name in dir durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "opening folder "+dir)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing folder "+dir+" to disk")
	}
	return nil
}
