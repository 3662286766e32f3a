package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/material"
)

func escrowCommand(a *app) *cobra.Command {
	return noun("escrow", "A master key in shares that people keep, for the day every other one is gone",
		`The escrow key is a master key that nobody has: it was split into shares, and any threshold of them give it back, while fewer
tell nothing about it. Give each share to another person, on paper if you like. On the day on which the cloud account or the
key file is gone, enough of them together open the store: 'keyturn escrow combine' needs neither server nor store.`,
		`  keyturn escrow split --shares 5 --threshold 3 --out /mnt/usb/shares
  keyturn escrow verify --share-file anna.txt --share-file ben.txt --share-file chris.txt
  keyturn escrow combine --share-file anna.txt --share-file ben.txt --share-file chris.txt --out /etc/keyturn/recovered.key`,
		escrowSplit(a), escrowShow(a), escrowVerify(a), escrowCombine(a),
	)
}

// escrowMade is what `escrow split --json` prints: where the shares are, not what is in them.
type escrowMade struct {
	Set       string   `json:"set"`
	Threshold int      `json:"threshold"`
	Shares    int      `json:"shares"`
	Files     []string `json:"files"`
	Replaced  string   `json:"replaced,omitempty"` // the set whose shares open nothing any more
}

func escrowSplit(a *app) *cobra.Command {
	in := api.SplitEscrowRequest{}
	var out string
	var yes bool
	return withFlags(&cobra.Command{
		Use: "split", Short: "Make a new escrow key and write its shares, one file each",
		Long: `Makes a new random master key, wraps every key-encryption key under it, adds escrow:// to masterKeys in keyturn.yaml, and
writes its shares into new files (0600) in a directory: one for each person. The shares are shown this once and kept nowhere.
The new set counts only once its shares are on disk, were read back and put together: until then, and if that fails, the
store stays as it was.

Where there are shares already, new ones take their place: the old ones open nothing in the store any more. That asks first.`,
		Example: "  keyturn escrow split --shares 5 --threshold 3 --out /mnt/usb/shares",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := material.CheckSplit(in.Threshold, in.Shares); err != nil {
				return err
			}
			if out == "" {
				return usage("out", "making escrow shares: the directory for them is missing").WithNext("name one: --out DIR")
			}
			return a.with(ctx, func(s *store) error {
				before, err := s.Escrow(ctx)
				if err != nil && keyturn.CodeOf(err) != api.CodeNotFound {
					return err
				}
				if in.Replace = err == nil; in.Replace {
					if err := a.confirm(ctx, yes, "Making new escrow shares: the %d shares of set %s open nothing in the store any more", before.Shares, before.Set); err != nil {
						return err
					}
				}
				files, err := reserveShares(out, in.Shares)
				if err != nil {
					return err
				}
				made, err := a.splitInto(ctx, s, files, in)
				if err != nil {
					return err
				}
				return a.showMade(made)
			})
		},
	}, func(cmd *cobra.Command) {
		f := cmd.Flags()
		f.IntVar(&in.Shares, "shares", 5, "make `N` shares, at most 64")
		f.IntVar(&in.Threshold, "threshold", 3, "let any `K` of them open the store: 2 to 16")
		f.StringVar(&out, "out", "", "write the shares into this `directory`, made 0700 where it isn't there (required)")
		f.BoolVar(&yes, "yes", false, "don't ask")
	})
}

// splitInto has the new set count only once its shares are on disk: prepared, written, read back, committed. What a kill
// leaves: before the commit, files of a set that never counted, beside the old set that does; after it, files of the
// set that counts.
func (a *app) splitInto(ctx context.Context, s *store, files *shareFiles, in api.SplitEscrowRequest) (escrowMade, error) {
	defer files.close()
	res, err := s.PrepareEscrow(ctx, in)
	if err != nil {
		return escrowMade{}, err
	}
	if err := a.keepShares(ctx, files, res); err != nil {
		return escrowMade{}, fault.Wrap("", err, "nothing is changed, since the new shares could not be kept").
			WithNext("see to the directory, or name another: keyturn escrow split --out DIR; " + countsStill(in.Replace))
	}
	files.keep = true // whatever happens from here on: they may be the shares of the set that counts
	split, err := s.CommitEscrow(ctx, res.Set)
	if err != nil {
		return escrowMade{}, a.notCommitted(ctx, s, files, res.Set, err)
	}
	if _, err := s.EscrowVerified(ctx, split.Set); err != nil {
		a.note("keyturn: that the shares were read back is not recorded: %s", message(err))
	}
	return escrowMade{Set: split.Set, Threshold: split.Threshold, Shares: split.Shares, Files: files.names, Replaced: split.Replaced}, nil
}

// countsStill is what holds after a split of which nothing came.
func countsStill(replace bool) string {
	if replace {
		return "the shares that there were still count"
	}
	return "the store has no shares, as before"
}

// keepShares writes a prepared set's shares, reads them back from their files and proves that they give the set's key.
func (a *app) keepShares(ctx context.Context, files *shareFiles, res api.EscrowShares) error {
	for _, share := range res.Shares {
		defer clear(share.Text)
	}
	if err := files.write(res.Shares); err != nil {
		return err
	}
	shares, m, err := a.combine(ctx, files.names)
	if err != nil {
		return fault.Wrap("", err, "reading the shares back")
	}
	m.Destroy()
	if shares[0].Set != res.Set {
		return fault.New(api.CodeIntegrity, "reading the shares back: they are others than those that were written")
	}
	return nil
}

// notCommitted is the error of a commit that was not answered well, which needn't mean that it didn't happen. The files go
// only where the store refused it, and says itself that another set counts: shares that are too many can be destroyed
// later, those of a set that counts can't be made again.
func (a *app) notCommitted(ctx context.Context, s *store, files *shareFiles, set string, failure error) error {
	now, err := s.Escrow(context.WithoutCancel(ctx))
	asked := err == nil || keyturn.CodeOf(err) == api.CodeNotFound
	var answer *keyturn.Error
	refused := errors.As(failure, &answer) && answer.RequestID != "" && // a proxy's word is none of the store's
		answer.Status/100 == 4 && answer.Code != api.CodeCancelled
	_, _, next := keyturn.Explain(failure)
	switch {
	case err == nil && now.Set == set:
		return fault.New(keyturn.CodeOf(failure), "the new set counts, and its shares are written, but not all is done: "+message(failure)).
			WithNext(joinedNext(next, "keep the shares in "+files.dir+", and see keyturn doctor"))
	case asked && refused:
		files.keep = false
		return failure
	}
	return fault.New(keyturn.CodeOf(failure), "it isn't known whether the new set "+set+" counts: "+message(failure)).
		WithNext(joinedNext(next, "keep the shares in "+files.dir+" until keyturn escrow show says which set counts; if it is another one, destroy them and split again"))
}

// joinedNext is two next steps as one.
func joinedNext(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

func (a *app) showMade(made escrowMade) error {
	if !a.json {
		a.note("Give each share to another person, then delete the files here: any %d of them open everything in the store.", made.Threshold)
		if made.Replaced != "" {
			a.note("The shares of set %s open nothing in the store any more. They still open older copies of it: collect and destroy them.", made.Replaced)
		}
	}
	return a.show(made, func(t *table) {
		t.row("set", made.Set)
		t.row("threshold", fmt.Sprintf("%d of %d", made.Threshold, made.Shares))
		for _, f := range made.Files {
			t.row("share", f)
		}
	})
}

func escrowShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Say which set of shares the store has",
		Long:    "Says which set of escrow shares the store has, how many of them are needed, and when enough were last seen to open it.",
		Example: "  keyturn escrow show",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				set, err := s.Escrow(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(set, func(t *table) {
					t.row("set", set.Set)
					t.row("threshold", fmt.Sprintf("%d of %d", set.Threshold, set.Shares))
					t.row("created", set.Created)
					t.row("verified", set.Verified)
				})
			})
		},
	}
}

func escrowCombine(a *app) *cobra.Command {
	var files []string
	var out string
	return withFlags(&cobra.Command{
		Use: "combine", Short: "Put enough shares together: the master key, in a new file",
		Long: `Puts shares together and writes the master key that they give into a new file (0600), in the form that file:// reads. It needs
no store and no server, and proves by a commitment in every share that the key is the right one.

Whoever has that file and a copy of the store opens everything. Name it in masterKeys, move the store to another master key,
make new shares, and delete the file: docs/runbooks/lost-master-key.md goes through it.`,
		Example: `  keyturn escrow combine --share-file anna.txt --share-file ben.txt --share-file chris.txt --out /etc/keyturn/recovered.key
  KEYTURN_MASTER_KEYS=file:///etc/keyturn/recovered.key keyturn doctor`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" || out == "-" {
				return usage("out", "combining shares: the file for the master key is missing").WithNext("name a new file: --out FILE")
			}
			path, err := filepath.Abs(out)
			if err != nil {
				return fault.Wrap(api.CodeInvalid, err, "finding the output file").WithField("out")
			}
			shares, m, err := a.combine(cmd.Context(), files)
			if err != nil {
				return err
			}
			defer m.Destroy()
			text := append(keyring.AppendText(nil, m), '\n')
			defer clear(text)
			if err := a.toFile(path, func() error { return a.write(text) }); err != nil {
				return err
			}
			if !a.json {
				a.note("Whoever has %s and a copy of the store opens everything in it. When the store has another master key, make new shares and delete it.", path)
			}
			got := recovered{(&url.URL{Scheme: "file", Path: path}).String(), shares[0].Set, shares[0].Threshold, len(shares)}
			return a.show(got, func(t *table) {
				t.row("master key", got.URL)
				t.row("fingerprint", got.Fingerprint)
				t.row("shares", fmt.Sprintf("%d, threshold %d", got.Shares, got.Threshold))
			})
		},
	}, func(cmd *cobra.Command) {
		shareFlag(cmd, &files)
		cmd.Flags().StringVar(&out, "out", "", "write the master key to this new `file` (0600, required)")
	})
}

// recovered is what `escrow combine --json` prints: where the key is, not the key.
type recovered struct {
	URL         string `json:"url"`
	Fingerprint string `json:"fingerprint"`
	Threshold   int    `json:"threshold"`
	Shares      int    `json:"shares"`
}

func shareFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVar(files, keyring.FieldShare, nil, "a share's `file`; give the flag once for each share")
}
