package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The modes of everything that the store consists of.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// secureFiles makes the directory and the file if there is none, and brings what is there to its mode. The write-ahead
// log and its index take the mode of the file when SQLite makes them; those that a crash left behind are tightened here.
func secureFiles(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fault.Wrapf(api.CodeUnavailable, err, "making the store's directory %s", dir)
	}
	if err := secure(dir, dirMode, true); err != nil {
		return err
	}
	if err := create(path); err != nil {
		return err
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + "-journal"} {
		if err := secure(name, fileMode, false); err != nil {
			return err
		}
	}
	return nil
}

// create makes an empty file, which SQLite takes for an empty database, and makes its name durable.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fault.Wrapf(api.CodeUnavailable, err, "making the store's file %s", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = errors.Join(f.Sync(), dir.Sync(), dir.Close())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.Wrapf(api.CodeUnavailable, err, "making the store's file %s", path)
	}
	return nil
}

// secure takes every right of others away from a file or directory that is ours, and refuses one that isn't ours and
// gives others any. A file that doesn't exist is fine. The umask may have taken rights from us too: they are given back.
func secure(name string, mode fs.FileMode, dir bool) error {
	info, err := os.Lstat(name)
	if dir && err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(name) // the way to the directory is the administrator's choice
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !dir:
		return nil
	case err != nil:
		return fault.Wrapf(api.CodeUnavailable, err, "checking the rights on %s", name)
	case info.IsDir() != dir || !dir && !info.Mode().IsRegular():
		return fault.Newf(api.CodeDenied, "opening the store: %s is not a plain file or directory", name).
			WithNext("choose another data directory")
	case info.Mode().Perm() == mode:
		return nil
	case ownedByUs(info):
		if err := os.Chmod(name, mode); err != nil {
			return fault.Wrapf(api.CodeUnavailable, err, "tightening the rights on %s", name)
		}
		return nil
	case info.Mode().Perm()&0o077 != 0:
		return fault.Newf(api.CodeDenied, "opening the store: %s belongs to another user and others may use it", name).
			WithNext("make this user its owner, or choose another data directory")
	}
	return nil
}
