package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/server"
)

// What `escrow verify` says of the store.
const (
	storeCurrent = "current"      // its set is the one of the shares
	storeUnknown = "not compared" // there is none here, or it can't be asked
)

// escrowChecked is what `escrow verify --json` prints. OK says that the key was proven; where the shares are whole and too few
// for that, Missing says how many more it takes.
type escrowChecked struct {
	OK        bool         `json:"ok"`
	Missing   int          `json:"missing,omitempty"`
	Set       string       `json:"set"`
	Threshold int          `json:"threshold"`
	Total     int          `json:"total"`
	Shares    []shareFound `json:"shares"`
	Store     string       `json:"store"`
}

type shareFound struct {
	File  string `json:"file"`
	Index int    `json:"index"`
}

func escrowVerify(a *app) *cobra.Command {
	var files []string
	var record bool
	return withFlags(&cobra.Command{
		Use: "verify", Short: "Prove that shares are whole, of one set, enough, and give its key",
		Long: `Checks the sum of every share, puts the shares together and proves the key that they give, on this machine alone. Where a
store can be asked, it also compares their set with the store's. No share ever leaves the command. With --record the store
notes, and its audit log shows, that enough shares were seen: 'keyturn doctor' warns when nobody has shown that for a year.

Whoever keeps one share can check it alone: it is found whole, with its set and how many more would prove the key ("ok":false
and "missing" with --json). Several that are too few are refused.`,
		Example: "  keyturn escrow verify --share-file anna.txt --share-file ben.txt --share-file chris.txt --record",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			shares, missing, err := a.checkShares(cmd.Context(), files, record)
			if err != nil {
				return err
			}
			out := escrowChecked{OK: missing == 0, Missing: missing, Set: shares[0].Set, Threshold: shares[0].Threshold, Total: shares[0].Total}
			for i, s := range shares {
				out.Shares = append(out.Shares, shareFound{files[i], s.Index})
			}
			if out.Store, err = a.compareSet(cmd.Context(), out.Set, record); err != nil {
				return err
			}
			return a.show(out, func(t *table) {
				if out.OK {
					t.row("result", "whole, and they give the key of their set")
				} else {
					t.row("result", fmt.Sprintf("whole; to prove the key of the set takes %d more of its shares", out.Missing))
				}
				t.row("set", out.Set)
				t.row("shares", len(out.Shares))
				t.row("threshold", out.Threshold)
				t.row("total", out.Total)
				t.row("store", out.Store)
			})
		},
	}, func(cmd *cobra.Command) {
		shareFlag(cmd, &files)
		cmd.Flags().BoolVar(&record, "record", false, "have the store record that enough shares were seen")
	})
}

// checkShares reads shares and proves the key that they give. A single one is checked for itself, and missing says how many more
// it takes; it is no evidence to record. The shares come back without their secrets.
func (a *app) checkShares(ctx context.Context, files []string, record bool) (shares []keyring.EscrowShare, missing int, err error) {
	shares, err = a.readShares(ctx, files)
	for _, s := range shares {
		defer s.Destroy()
	}
	if err != nil {
		return nil, 0, err
	}
	if few := shares[0].Threshold - len(shares); few > 0 && len(shares) == 1 && !record {
		return shares, few, nil // reading it has checked its sum
	}
	m, err := keyring.CombineShares(shares)
	m.Destroy()
	return shares, 0, err
}

// compareSet holds a set against the store's, where there is a store to ask. Shares must be proven also on the day on which
// nothing opens the store, so one that can't be asked is a note, unless something is to be recorded in it.
func (a *app) compareSet(ctx context.Context, set string, record bool) (string, error) {
	if !record && !a.storeNamed() {
		return storeUnknown, nil
	}
	other := false
	err := a.with(ctx, func(s *store) error {
		if record {
			_, err := s.EscrowVerified(ctx, set)
			return err
		}
		now, err := s.Escrow(ctx)
		if other = err == nil && now.Set != set || keyturn.CodeOf(err) == api.CodeNotFound; other {
			return fault.New(api.CodeIntegrity, "the shares are whole, but of another set than the store's: they open nothing in it").
				WithField("share-file").WithNext(foreignSet)
		}
		return err
	})
	switch {
	case err == nil:
		return storeCurrent, nil
	case record || other:
		return "", err
	}
	a.note("keyturn: not compared with the store: %s", message(err))
	return storeUnknown, nil
}

// foreignSet is what to do with shares of another set than the store's.
const foreignSet = "see which set counts: keyturn escrow show. These were replaced by it, or never counted, as when keyturn escrow split was ended before its commit: " +
	"gather the shares of the set that counts. Destroy these, once no older copy of the store needs them"

// storeNamed says whether there is anything that a command could open.
func (a *app) storeNamed() bool {
	if fromEnv(a.server, "KEYTURN_SERVER") != "" {
		return true
	}
	dir, err := a.directory()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, server.ConfigFile))
	return err == nil
}

// message is an error's text for people.
func message(err error) string {
	text, _, _ := keyturn.Explain(err)
	return text
}
