package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// move is a verb that leads one version from a state to another.
type move struct {
	verb, short, long, example string
	needsReason, destroys      bool
	call                       func(*keyturn.Client, context.Context, string, api.VersionStateRequest) (api.Key, error)
}

// moves is the table of these verbs.
var moves = map[string]move{
	"suspend": {
		verb: "suspend", short: "Stop a version for a while",
		long:    "Suspends a version, by default the active one: it seals nothing until it is resumed, and opens nothing unless the key\nwas made with --suspended-decrypts.",
		example: "  keyturn key suspend phi --reason \"checking an incident\"",
		call:    (*keyturn.Client).SuspendKey,
	},
	"resume": {
		verb: "resume", short: "End a suspension",
		long:    "Ends a suspension: the version is active again, or, when it only opened before or another version is active by now, opens\nagain what it sealed.",
		example: "  keyturn key resume phi",
		call:    (*keyturn.Client).ResumeKey,
	},
	"disable": {
		verb: "disable", short: "Take one thing away from a version: sealing, then opening",
		long:    "Disables a version, by default the active one. The active version is deactivated: it goes on opening what it sealed and never\nseals again, and the key protects nothing until it is rotated. A version that only opens is suspended: it opens nothing\neither, until 'keyturn key resume' (unless the key was made with --suspended-decrypts). One that is suspended is refused,\nso that repeating the command never gives anything back.",
		example: "  keyturn key disable phi --version 2",
		call:    (*keyturn.Client).DisableKey,
	},
	"compromise": {
		verb: "compromise", short: "Mark a version as known to others",
		long:    "Marks a version as compromised: from now on it opens only for callers with key.decrypt-compromised, and every use of it\nis flagged in the audit log. There is no way back. Afterwards move the data: keyturn dataset reencrypt.",
		example: "  keyturn key compromise phi --version 3 --reason \"laptop stolen\"", needsReason: true,
		call: (*keyturn.Client).CompromiseKey,
	},
	"destroy": {
		verb: "destroy", short: "Schedule the destruction of a version",
		long:    "Schedules the destruction of a version: it opens nothing from now on, and after --wait-days its material is gone for\never. Until then 'keyturn key undestroy' brings it back. Refused, saying where and how many, while a registered dataset\nholds values under the version, while its policy's grace lasts after another version followed it (keyturn policy show NAME),\nand while it was used within the last hour. Asks first on a terminal. With --force it is scheduled all the same, once two\npeople have said so, each with a token of his own: what stands under it is lost then. Two who count as people were both\nmade, as were their tokens, a day before the first one asks, and neither made the other or issued a token of it.\n\nA server executes what is due, within minutes. Where none runs, nothing is destroyed until one does, or until --due says\nso: call it from a timer. What depends on a version is looked for once more then. A destruction also waits until keyturn\nhas run for as long as the waiting time, so that a clock set forward destroys nothing; where only commands run,\n--unwatched says that the date is right.",
		example: "  keyturn key destroy phi --version 1\n  keyturn key destroy phi --version 1 --wait-days 7 --yes\n  keyturn key destroy --due", destroys: true,
		call: (*keyturn.Client).DestroyKey,
	},
	"undestroy": {
		verb: "undestroy", short: "Take a version back out of scheduled destruction",
		long:    "Brings a version that is scheduled for destruction back to the state that it had before.",
		example: "  keyturn key undestroy phi --version 1",
		call:    (*keyturn.Client).UndestroyKey,
	},
}

// forced says whether a second person has agreed.
func forced(k api.Key, version uint32) bool {
	return slices.ContainsFunc(k.Versions, func(v api.KeyVersion) bool { return v.Version == version && v.Forced })
}

// destroyDue executes what is due and waits for it.
func (a *app) destroyDue(cmd *cobra.Command, in api.DestroyDueRequest) error {
	ctx := cmd.Context()
	for _, name := range []string{"version", "wait-days", "force"} {
		if cmd.Flags().Changed(name) {
			return usage(name, "key destroy: --%s doesn't go with --due", name).WithNext("--due executes what was scheduled before, and nothing else")
		}
	}
	return a.with(ctx, func(s *store) error {
		out, err := s.DestroyDue(ctx, in)
		if err != nil {
			return err
		}
		var failed error
		if out.Job != "" {
			j, err := a.watch(ctx, s, out.Job, "key destroy --due", "versions")
			if err != nil {
				return err
			}
			out.State, failed = j.State, outcomeOf(j)
		}
		err = a.show(out, func(t *table) {
			if len(out.Due) == 0 {
				t.line("No destruction is due.")
				return
			}
			t.row("KEY", "VERSION", "DUE SINCE", "WAITS FOR")
			waiting := false
			for _, d := range out.Due {
				waits := "-"
				if d.WaitSeconds > 0 && !in.Unwatched {
					waits, waiting = (time.Duration(d.WaitSeconds) * time.Second).String(), true
				}
				t.row(d.Key, d.Version, d.DestroyAt, waits)
			}
			if waiting {
				t.line("keyturn didn't run for all of the waiting time, and waits until it has: run keyturn serve, or, if the date is right, say --unwatched --reason WHY.")
			}
			if out.Job != "" {
				t.line("job %s: %s", out.Job, out.State)
			}
		})
		if err != nil {
			return err
		}
		return failed
	})
}

func keyMove(a *app, m move) *cobra.Command {
	var in api.VersionStateRequest
	var yes, due, dryRun, unwatched bool
	cmd := &cobra.Command{
		Use: m.verb + " NAME", Short: m.short, Long: m.long, Example: m.example,
		Args: func(cmd *cobra.Command, given []string) error {
			if due {
				return args()(cmd, given)
			}
			return args("NAME")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if due {
				return a.destroyDue(cmd, api.DestroyDueRequest{DryRun: dryRun, Unwatched: unwatched, Reason: in.Reason})
			}
			if unwatched {
				return usage("unwatched", "key %s: --unwatched goes with --due", m.verb).WithNext("it is about what was scheduled before")
			}
			if dryRun {
				return usage("dry-run", "key %s: --dry-run goes with --due", m.verb).WithNext("a destruction is only scheduled, and undestroy takes it back")
			}
			if m.needsReason && in.Reason == "" {
				return usage("reason", "key %s: a reason is missing", m.verb).WithNext("say --reason WHY, for the audit log")
			}
			if m.destroys {
				if in.Version == 0 {
					return usage("version", "key %s: the version is missing", m.verb).WithNext("say --version N; keyturn key show lists them")
				}
				// Only scheduled, and undestroy takes it back: where nobody can be asked, the server's rules are enough.
				if err := a.confirm(cmd.Context(), yes || !a.interactive(), "Destroying version %d of key %s", in.Version, printable(args[0])); err != nil {
					return err
				}
			}
			return a.with(cmd.Context(), func(s *store) error {
				k, err := m.call(s.Client, cmd.Context(), args[0], in)
				if err == nil && in.Force && !forced(k, in.Version) {
					a.note("Noted. Nothing happens until another person, who may force destructions too, whom you didn't make and whose token you didn't issue, gives the same command within a day.")
				}
				return a.showKey(k, err)
			})
		},
	}
	f := cmd.Flags()
	versionVar(f, &in.Version, "version", "the `version`; by default the only one in question")
	f.StringVar(&in.Reason, "reason", "", "`why`, for the audit log")
	if m.destroys {
		f.IntVar(&in.WaitDays, "wait-days", 0, "after how many `days` the material is gone: 7 to 30 (default 30)")
		f.BoolVar(&yes, "yes", false, "don't ask on a terminal")
		f.BoolVar(&due, "due", false, "execute the scheduled destructions that are due, of all keys, and wait for it")
		f.BoolVar(&unwatched, "unwatched", false, "with --due: the date is right, although keyturn didn't run for all of the waiting time; wants a --reason")
		f.BoolVar(&dryRun, "dry-run", false, "with --due: say what is due, and change nothing")
		f.BoolVar(&in.Force, "force", false, "although something depends on it; two people have to say so, with a --reason and their own tokens, within a day")
	}
	return cmd
}
