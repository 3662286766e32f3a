package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

func reportCommand(a *app) *cobra.Command {
	return noun("report", "Write evidence for people who will not take our word for it",
		"A report is signed by the audit log's key and comes with the proofs that it rests on.",
		"  keyturn report retirement phi --version 1 --out phi-1.json\n  keyturn audit verify --retirement phi-1.json --key audit.pub",
		reportRetirement(a),
	)
}

func reportRetirement(a *app) *cobra.Command {
	var version uint32
	var out string
	return withFlags(&cobra.Command{
		Use: "retirement KEY", Short: "Write the signed life of one version, from making to destruction",
		Long: `Writes a signed statement about one version of a key: when it was made, followed by another, last used and destroyed, by whom,
how many rows were moved away from it in each dataset, and since when a count of each found nothing left. Every event that it
rests on comes with the proof that it is in the audit log. 'keyturn audit verify --retirement FILE' checks all of it offline.

Works at any time: for a version that isn't destroyed yet it says what is known so far.`,
		Example: "  keyturn report retirement phi --version 1 --out phi-1.json",
		Args:    args("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version == 0 {
				return usage("version", "report retirement: the version is missing").WithNext("say --version N; keyturn key show lists them")
			}
			return a.with(cmd.Context(), func(s *store) error {
				doc, err := s.Retirement(cmd.Context(), args[0], version)
				if err != nil {
					return err
				}
				return a.toFile(out, func() error {
					enc := json.NewEncoder(a.out)
					enc.SetEscapeHTML(false)
					return writing(enc.Encode(doc))
				})
			})
		},
	}, func(cmd *cobra.Command) {
		versionVar(cmd.Flags(), &version, "version", "the `version`")
		cmd.Flags().StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
	})
}

// verifyRetirement checks a retirement offline.
func (a *app) verifyRetirement(file, keyFile string) error {
	key, err := readAuditKey(keyFile)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return fileFault(err, "reading the retirement", "retirement")
	}
	if info.Size() > audit.MaxRetirement {
		return fault.New(api.CodeTooLarge, "reading the retirement: the file is too large to be one").WithField("retirement").WithNext("give it what keyturn report retirement wrote")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fileFault(err, "reading the retirement", "retirement")
	}
	r, err := audit.VerifyRetirement(text, key)
	if err != nil {
		bad := fault.Wrap("", err, "checking the retirement").WithField("retirement")
		if fault.NextOf(err) == "" {
			bad = bad.WithNext("check that --key is the public key of the store's log, and that the file is as keyturn report retirement wrote it: changed, it proves nothing")
		}
		return bad
	}
	doc := struct {
		OK bool `json:"ok"`
		api.Retirement
	}{true, r}
	return a.show(doc, func(t *table) { retirementTable(t, r) })
}

func retirementTable(t *table, r api.Retirement) {
	t.row("result", "signed by the log's key, and every event is in the log")
	t.row("log", r.Log)
	t.row("version", fmt.Sprintf("%d of key %s (%s)", r.Version, r.Key, r.Purpose))
	t.row("state", r.State)
	for _, act := range []struct {
		what string
		act  *api.RetirementAct
	}{{"made", r.Created}, {"followed", r.Followed}, {"compromised", r.Compromised}, {"destruction scheduled", r.DestroyScheduled}, {"destroyed", r.Destroyed}} {
		if act.act != nil {
			text := fmt.Sprintf("%s by %s", cell(act.act.At), act.act.By)
			if act.act.Reason != "" {
				text += ": " + act.act.Reason
			}
			t.row(act.what, text)
		}
	}
	if r.DestroyDue != nil && r.Destroyed == nil {
		t.row("destruction due", r.DestroyDue)
	}
	t.row("last opened", r.LastOpened)
	t.row("on the list of the destroyed", r.Tombstone)
	if r.Forced {
		t.row("forced", "two people had it destroyed although something depended on it")
	}
	t.line("")
	t.row("DATASET", "ROWS MOVED SINCE", "NOTHING LEFT SINCE")
	for _, d := range r.Datasets {
		t.row(d.Dataset, d.RowsMoved, d.ZeroSince)
	}
	for _, d := range r.Removed {
		left := "nothing left under the version"
		if d.Left {
			left = "with values left under the version, or not counted"
		}
		t.line("removed: dataset %s at %s by %s, %s; %s", d.Dataset, cell(d.At), d.By, left, d.Reason)
	}
	t.line("")
	t.row("DATASET", "COLUMN", "LEFT AT "+cell(r.TakenAt))
	for _, c := range r.Census {
		if c.Problem != "" {
			t.row(c.Dataset, c.Column, "unknown: "+c.Problem)
			continue
		}
		t.row(c.Dataset, c.Column, c.Rows)
	}
}
