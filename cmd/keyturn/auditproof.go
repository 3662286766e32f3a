package main

import (
	"bufio"
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

func auditExport(a *app) *cobra.Command {
	var out string
	return withFlags(&cobra.Command{
		Use: "export", Short: "Write the whole log as lines that verify offline",
		Long: `Writes every event, one JSON object a line, and at the end the signed checkpoint: what 'keyturn audit verify FILE' takes, and
what jq and a SIEM read. Give an auditor the file, audit.pub, and nothing else.`,
		Example: "  keyturn audit export --out audit.jsonl\n  keyturn audit export | jq 'select(.success == false)'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json && out == "" {
				return usage("json", "audit export: with --json the export needs a file of its own").WithNext("say --out FILE, or leave --json away: every line is JSON already")
			}
			return a.with(cmd.Context(), func(s *store) error {
				var n int64
				err := a.toFile(out, func() (err error) {
					n, err = s.ExportAudit(cmd.Context(), a.out, keyturn.AuditQuery{})
					return err
				})
				if err != nil || out == "" {
					return err
				}
				done := struct {
					File  string `json:"file"`
					Bytes int64  `json:"bytes"`
				}{out, n}
				return a.show(done, func(t *table) { t.line("%s bytes written to %s.", grouped(n), out) })
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
	})
}

func auditCheckpoint(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "Sign the heads of the log now",
		Long: `Signs size and root of every shard now and prints the signed note. Keep it away from the store, with somebody else: a log that
is cut or replaced later doesn't fit it any more.`,
		Example: "  keyturn audit checkpoint | mail -s checkpoint auditor@example.org",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				c, err := s.Checkpoint(cmd.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.show(c, nil)
				}
				return a.write([]byte(c.Note))
			})
		},
	}
}

func auditVerify(a *app) *cobra.Command {
	var key, kept, retirement string
	return withFlags(&cobra.Command{
		Use: "verify [FILE]", Short: "Check that nothing in the log was changed, removed or put in",
		Long: `With a FILE, checks an export on this machine alone: no store, no server, nobody to trust but the public key. Every event is
read, the trees are built anew and compared with the signed checkpoints: the one in the export, and with --checkpoints those
that were kept elsewhere, which also find a log that was cut short or replaced.

With --retirement FILE, checks what 'keyturn report retirement' wrote, in the same way: on this machine alone.

Without a FILE, the store checks its own log. Exit status 6, naming the first bad place, when anything is wrong.`,
		Example: `  keyturn audit verify audit.jsonl --key audit.pub
  keyturn audit verify audit.jsonl --key audit.pub --checkpoints kept-checkpoints.log
  keyturn audit verify`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("FILE")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if retirement != "" {
				if len(args) > 0 || kept != "" {
					return usage("retirement", "audit verify: --retirement goes with --key alone").WithNext("check the export in a command of its own")
				}
				return a.verifyRetirement(retirement, key)
			}
			if len(args) == 0 && (key != "" || kept != "") {
				return usage("file", "audit verify: --key and --checkpoints are for a FILE").WithNext("name the exported FILE")
			}
			if len(args) == 1 {
				v, err := verifyFile(args[0], key, kept)
				return a.showVerification(v, err)
			}
			return a.with(cmd.Context(), func(s *store) error { return a.verifyStore(cmd.Context(), s) })
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&key, "key", "", "the log's public key, the `file` audit.pub (required with FILE)")
		cmd.Flags().StringVar(&retirement, "retirement", "", "check this `file`, which report retirement wrote")
		cmd.Flags().StringVar(&kept, "checkpoints", "", "a `file` of checkpoints that were kept elsewhere")
	})
}

func (a *app) verifyStore(ctx context.Context, s *store) error {
	v, err := s.VerifyAudit(ctx)
	return a.showVerification(v, err)
}

// readAuditKey reads the log's public key, without which nothing can be checked offline.
func readAuditKey(file string) (*audit.Key, error) {
	if file == "" {
		return nil, usage("key", "audit verify: the log's public key is missing").
			WithNext("say --key audit.pub; it lies in the data directory, and a copy should lie with the auditor")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fileFault(err, "reading the log's public key", "key")
	}
	return audit.ParseKey(string(text))
}

// verifyFile checks an export offline.
func verifyFile(file, keyFile, keptFile string) (api.AuditVerification, error) {
	key, err := readAuditKey(keyFile)
	if err != nil {
		return api.AuditVerification{}, err
	}
	var kept []audit.Checkpoint
	if keptFile != "" {
		f, err := openFile(keptFile, "opening the kept checkpoints", "checkpoints")
		if err != nil {
			return api.AuditVerification{}, err
		}
		defer f.Close()
		if kept, err = audit.ReadCheckpoints(bufio.NewReader(f), key); err != nil {
			return api.AuditVerification{}, err
		}
	}
	f, err := openFile(file, "opening the export", "file")
	if err != nil {
		return api.AuditVerification{}, err
	}
	defer f.Close()
	report, err := audit.Verify(f, key, kept)
	return verificationOf(report), err
}

// showVerification prints what a verification found, and ends with status 6 when it isn't well.
func (a *app) showVerification(v api.AuditVerification, err error) error {
	if err != nil && (keyturn.CodeOf(err) != api.CodeIntegrity || v.Bad == "") {
		return err
	}
	if serr := a.show(v, func(t *table) { verificationTable(t, v) }); serr != nil {
		return errors.Join(serr, err)
	}
	if err != nil {
		return err
	}
	if !v.OK {
		return fault.New(api.CodeIntegrity, "verifying the audit log: "+v.Bad).WithNext("don't repair anything; see the runbook audit-does-not-verify")
	}
	return nil
}

func verificationTable(t *table, v api.AuditVerification) {
	if !v.OK {
		t.row("result", "NOT what was signed")
		t.row("first bad place", v.Bad)
	} else {
		t.row("result", "exactly what was signed")
	}
	t.row("events", v.Events)
	for _, s := range v.Shards {
		t.row("shard "+cell(s.Shard), grouped(int64(s.Size))+" events, root "+s.Root)
	}
}

// verificationOf is a report as --json prints it.
func verificationOf(r audit.Report) api.AuditVerification {
	v := api.AuditVerification{OK: r.OK(), Events: r.Events, Shards: []api.AuditShard{}, Checkpoint: r.Checkpoint.Note}
	for _, s := range r.Shards {
		v.Shards = append(v.Shards, api.AuditShard{Shard: s.Shard, Size: s.Size, Root: s.Root.String()})
	}
	if r.Bad != nil {
		v.Bad = r.Bad.String()
	}
	return v
}
