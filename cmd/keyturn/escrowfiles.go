package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

// shareFiles are the files of a new set: made empty before the set is, so that a directory that can't be written to, or has
// shares already, is found while nothing has happened yet.
type shareFiles struct {
	dir   string
	made  []string // the directories that were made for them, the deepest first
	names []string
	open  []*os.File
	keep  bool // they may be the shares of the set that counts
}

// reserveShares makes n new files, 0600, in a directory that nobody else can write to. It replaces nothing.
func reserveShares(dir string, n int) (_ *shareFiles, err error) {
	made := missing(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileFault(err, "making the directory for the shares", "out")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fileFault(err, "looking at the directory for the shares", "out")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fault.New(api.CodeWrongState, "writing the shares: others can write into the directory").WithField("out").
			WithNext("name a new directory, which is made 0700, or chmod it to 0700")
	}
	s := &shareFiles{dir: dir, made: made}
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("escrow-share-%d-of-%d.txt", i+1, n))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			s.close()
			return nil, fault.Wrap("", fileFault(err, "making share file "+name, "out"), "making escrow shares").
				WithField("out").WithNext("name another directory: shares are never overwritten")
		}
		s.names, s.open = append(s.names, name), append(s.open, f)
	}
	return s, nil
}

// missing are the directories on the way to dir that aren't there yet, the deepest first.
func missing(dir string) (out []string) {
	for {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return out
		}
		out = append(out, dir)
		dir = filepath.Dir(dir)
	}
}

// write puts the shares on disk, and returns when they and their names are there.
func (s *shareFiles) write(shares []api.EscrowShare) error {
	if len(shares) != len(s.open) {
		return fault.Newf(api.CodeInternal, "writing the shares: the store made %d, not %d", len(shares), len(s.open))
	}
	for i, share := range shares {
		_, err := s.open[i].Write(share.Text)
		if err = errors.Join(err, s.open[i].Sync()); err != nil {
			return fileFault(err, "writing share file "+s.names[i], "out")
		}
	}
	for _, dir := range append([]string{s.dir}, parents(s.made)...) {
		d, err := os.Open(dir)
		if err != nil {
			return fileFault(err, "opening directory "+dir, "out")
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fileFault(err, "writing directory "+dir+" to disk", "out")
		}
	}
	return nil
}

// parents are the directories that directories stand in.
func parents(dirs []string) (out []string) {
	for _, d := range dirs {
		out = append(out, filepath.Dir(d))
	}
	return out
}

// close closes the files and, unless they are to be kept, removes them, as the directories that were made for them. Removed
// is not wiped: what they hold is shares of a set that never counted.
func (s *shareFiles) close() {
	for i, f := range s.open {
		_ = f.Close()
		if !s.keep {
			_ = os.Remove(s.names[i])
		}
	}
	for _, dir := range s.made {
		if !s.keep {
			_ = os.Remove(dir) // one that holds something else stays
		}
	}
	s.open = nil
}

// combine reads shares and puts them together. The key is the caller's to destroy; the shares come back without their
// secrets.
func (a *app) combine(ctx context.Context, files []string) ([]keyring.EscrowShare, *material.Bytes, error) {
	shares, err := a.readShares(ctx, files)
	for _, s := range shares {
		defer s.Destroy()
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := keyring.CombineShares(shares)
	return shares, m, err
}

// readShares reads the files of shares; those that were read come back also with an error.
func (a *app) readShares(ctx context.Context, files []string) (shares []keyring.EscrowShare, err error) {
	if len(files) == 0 {
		return nil, usage(keyring.FieldShare, "reading shares: no share file is named").WithNext("name each: --share-file FILE --share-file FILE …")
	}
	for _, file := range files {
		name := "share file " + printable(file)
		f, err := openFile(file, "opening "+name, keyring.FieldShare)
		if err != nil {
			return shares, err
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			a.note("keyturn: warning: others can read %s (mode %04o)", name, info.Mode().Perm())
		}
		text, err := readAll(f, "share", keyring.MaxShareText)
		_ = f.Close()
		if err != nil {
			return shares, fault.Wrap("", err, "reading "+name).WithField(keyring.FieldShare)
		}
		share, err := keyring.ParseEscrowShare(name, text)
		if err != nil {
			return shares, err
		}
		if shares = append(shares, share); ctx.Err() != nil {
			return shares, fault.Wrap("", ctx.Err(), "reading shares")
		}
	}
	return shares, nil
}
