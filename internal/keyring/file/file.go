// Package file is the master-key provider for a key in a file: file:///absolute/path.
//
// The file holds 32 bytes in base64 (see keyring.ParseKeyText) and must belong to whoever runs keyturn, or to root, and
// be closed to everybody else: mode 0600 or less, or it is refused. A symbolic link is followed, as mounted secrets are
// links; what counts is the file that it leads to.
package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// maxSize is far more than a key takes, in bytes: a larger file is something else.
const maxSize = 4 << 10

// Driver opens and generates file:// master keys. The zero value is ready.
type Driver struct{}

// Scheme is "file".
func (Driver) Scheme() string { return "file" }

// Open reads the file. Errors: invalid for the URL or the content, not_found, wrong_state when others may read the file,
// denied when this process may not.
func (Driver) Open(_ context.Context, raw string) (keyring.MasterKey, error) {
	path, err := pathOf(raw)
	if err != nil {
		return nil, err
	}
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	m, err := keyring.ParseKeyText(text)
	if err != nil {
		return nil, fault.Wrap("", err, "reading master key file "+path)
	}
	return keyring.Hold(urlOf(path), "file", m)
}

// Canonical is the URL with nothing encoded that needn't be.
func (Driver) Canonical(_ context.Context, raw string) (string, error) {
	path, err := pathOf(raw)
	return urlOf(path), err
}

func urlOf(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// pathOf reads file:///path. The path must be absolute and clean, so that a key is named in one way only.
func pathOf(raw string) (string, error) {
	u, err := keyring.ParseURL(raw, "file")
	if err != nil {
		return "", err
	}
	if u.Host != "" || u.RawQuery != "" || u.ForceQuery || !filepath.IsAbs(u.Path) || filepath.Clean(u.Path) != u.Path || u.Path == "/" {
		return "", fault.New(api.CodeInvalid, "reading a master key's URL: after file:// stands an absolute path").
			WithField(keyring.FieldURL).WithNext("write file:///etc/keyturn/master.key")
	}
	return u.Path, nil
}

// read checks the file that it has open, not a name that could lead elsewhere a moment later.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, opening(err, path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "looking at master key file "+path)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(api.CodeInvalid, "reading master key file "+path+": it isn't a regular file")
	}
	if info.Mode().Perm()&0o077 != 0 || !ownedByUs(info) {
		return nil, fault.Newf(api.CodeWrongState, "reading master key file %s: others can read or change it (mode %04o)", path, info.Mode().Perm()).
			WithNext("chown it to the user that runs keyturn and chmod 600 " + path + "; if others may have read it, rotate the master key")
	}
	if info.Size() > maxSize {
		return nil, fault.New(api.CodeInvalid, "reading master key file "+path+": it is too large to be a key")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "reading master key file "+path)
	}
	return text, nil
}

// opening says why a file could not be opened.
func opening(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(api.CodeNotFound, err, "opening master key file "+path).
			WithNext("put it back, or see docs/runbooks/lost-master-key.md: a server that still runs holds a copy. For a new store, keyturn master generate makes one")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(api.CodeDenied, err, "opening master key file "+path).WithNext("run as the user that owns it")
	}
	return fault.Wrap(api.CodeUnavailable, err, "opening master key file "+path)
}
