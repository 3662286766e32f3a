package server

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// The names in a data directory: see the package comment.
const (
	ConfigFile     = "keyturn.yaml"
	DatabaseFile   = "keyturn.db"
	LockFile       = "lock"
	SocketFile     = "keyturn.sock"
	MasterKeyFile  = "master.key"
	CheckpointFile = "checkpoints.log"
	AuditKeyFile   = "audit.pub"
	TombstoneFile  = "tombstones.log"
	TLSDir         = "tls"
	CAFile         = "ca.crt" // in TLSDir: what clients trust
)

// DefaultDir is the data directory when nobody names one: keyturn/ in the platform's directory for a user's data
// ($XDG_DATA_HOME, by default ~/.local/share, on Linux and the BSDs).
func DefaultDir() (string, error) {
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "keyturn"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.Wrap(api.CodeInvalid, err, "finding a data directory").WithField("dir").WithNext("name one: --dir DIR or KEYTURN_DIR")
	}
	return filepath.Join(home, dataHome, "keyturn"), nil
}

// openDir makes sure that dir is a directory of this user's that nobody else can enter; with make it is made if it isn't
// there. One that was too open is closed: what it already let out can't be helped, but from now on it doesn't.
func openDir(dir string, create bool) error {
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fault.Wrap(api.CodeUnavailable, err, "making the data directory").WithField("dir")
		}
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(api.CodeNotFound, err, "opening the data directory").WithField("dir").WithNext("make a store there: keyturn init")
	}
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "opening the data directory").WithField("dir")
	}
	if !info.IsDir() {
		return fault.New(api.CodeInvalid, "opening the data directory: it is a file").WithField("dir")
	}
	if !owned(info) {
		return fault.New(api.CodeDenied, "opening the data directory: it belongs to another user").WithField("dir").
			WithNext("run keyturn as the user who owns it")
	}
	return closeOthers(dir, info.Mode(), 0o700)
}

// closeOthers takes the rights of others away.
func closeOthers(path string, mode fs.FileMode, want fs.FileMode) error {
	if mode.Perm()&^want == 0 {
		return nil
	}
	if err := os.Chmod(path, mode.Perm()&want); err != nil {
		return fault.Wrap(api.CodeDenied, err, "closing "+filepath.Base(path)+" to other users").WithNext("chmod it to 0600, the directory to 0700")
	}
	return nil
}

// closeFiles closes every file of the data directory to other users: those of an earlier life with a careless umask, or
// put there by hand. A symbolic link to elsewhere is the owner's choice and left alone, and so are the files of the master
// keys in urls: one that others could read is refused by who opens it, and not made to look as if it had been safe.
func closeFiles(dir string, urls []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "reading the data directory").WithField("dir")
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() || isMasterKey(filepath.Join(dir, e.Name()), info, urls) {
			continue
		}
		if err := closeOthers(filepath.Join(dir, e.Name()), info.Mode(), 0o700&^executable(info)); err != nil {
			return err
		}
	}
	return nil
}

// isMasterKey says whether a file is named, under this or another name, by the URL of a master key.
func isMasterKey(path string, info fs.FileInfo, urls []string) bool {
	return slices.ContainsFunc(urls, func(text string) bool {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "file" {
			return false
		}
		named, err := os.Stat(u.Path)
		return u.Path == path || err == nil && os.SameFile(named, info)
	})
}

// executable is the right that a file has no use for and a directory needs.
func executable(info fs.FileInfo) fs.FileMode {
	if info.IsDir() {
		return 0
	}
	return 0o100
}

// writeFile writes a file so that it is there whole or not at all, also after a power cut: a temporary file beside it,
// fsync, rename, fsync of the directory. Its mode is 0600 whatever the umask.
func writeFile(path string, content []byte) error {
	what := "writing " + filepath.Base(path)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, what)
	}
	defer os.Remove(f.Name()) // gone already once it was renamed
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, what)
	}
	return nil
}

// tryFile says whether writeFile could put a file of the length that path has now in its place, short of the renaming.
func tryFile(path string) error {
	what := "trying to write " + filepath.Base(path)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(api.CodeUnavailable, err, what)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, what)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync() // where a file system says late that it is full
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, what)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// removeLeftovers deletes the temporary files that a writeFile killed half way left behind.
func removeLeftovers(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		for _, name := range []string{ConfigFile, MasterKeyFile, AuditKeyFile} {
			if strings.HasPrefix(e.Name(), "."+name+".") {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
