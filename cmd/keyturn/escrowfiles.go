package main

import (
	"context"
	"errors"
	"fmt"
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
	names []string
	open  []*os.File
	full  int // how many are written
}

// reserveShares makes n new files, 0600, in a directory that nobody else can write to. It replaces nothing.
func reserveShares(dir string, n int) (_ *shareFiles, err error) {
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
	s := &shareFiles{dir: dir}
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

// write puts the shares on disk, and returns when they are.
func (s *shareFiles) write(shares []api.EscrowShare) error {
	if len(shares) != len(s.open) {
		return fault.Newf(api.CodeInternal, "writing the shares: the store made %d, not %d", len(shares), len(s.open))
	}
	for i, share := range shares {
		_, err := s.open[i].Write(share.Text)
		if err = errors.Join(err, s.open[i].Sync()); err != nil {
			return fileFault(err, "writing share file "+s.names[i], "out")
		}
		s.full++
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return fileFault(err, "opening the directory for the shares", "out")
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fileFault(err, "writing the directory for the shares to disk", "out")
	}
	return nil
}

// close closes the files and removes those that hold no whole share.
func (s *shareFiles) close() {
	for i, f := range s.open {
		_ = f.Close()
		if i >= s.full {
			_ = os.Remove(s.names[i])
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
