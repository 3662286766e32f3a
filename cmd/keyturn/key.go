package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func keyCommand(a *app) *cobra.Command {
	return noun("key", "Make keys, rotate them, and lead their versions through their life",
		`A key has a name, a purpose and versions; exactly one version is active and protects. Older versions go on opening what
they sealed until they are disabled, compromised or destroyed.`,
		`  keyturn key create phi --purpose phi --period 90d
  keyturn key rotate phi
  keyturn key destroy phi --version 1`,
		keyCreate(a), keyList(a), keyShow(a), keyRotate(a),
		keyMove(a, moves["suspend"]), keyMove(a, moves["resume"]), keyMove(a, moves["disable"]),
		keyMove(a, moves["compromise"]), keyMove(a, moves["destroy"]), keyMove(a, moves["undestroy"]),
		keyDerive(a), keyDatakey(a), keyImport(a), keyExport(a),
	)
}

func keyCreate(a *app) *cobra.Command {
	var in api.CreateKeyRequest
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key with its first version, active at once",
		Long: `Makes a key. Its first version is active at once and protects until the period, or a number of operations or bytes, is
reached. Names are lower-case letters, digits, '_', '.' and '-', up to 128.`,
		Example: `  keyturn key create phi --purpose phi --period 90d
  keyturn key create user_pii --purpose pii --suite 2
  keyturn key create legacy --algorithm aes-256-cbc-hmac-sha256`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			return a.with(cmd.Context(), func(s *store) error {
				k, err := s.CreateKey(cmd.Context(), in)
				return a.showKey(k, err)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Purpose, "purpose", "", "what the key protects: data (default), phi, pii, audit, backup, credentials or a `word` of yours")
	f.StringVar(&in.Algorithm, "algorithm", "", "the `algorithm`: aes-256-gcm (default) or aes-256-cbc-hmac-sha256")
	f.IntVar(&in.Suite, "suite", 0, "the ciphertext `suite`: 1 (default), 2 for narrow columns, 4 for AES-256-CBC")
	f.StringVar(&in.Period, "period", "", "how long a version protects, a `duration` from 1h to 730d, or 0 for no limit (default: what the policies say)")
	f.Uint64Var(&in.MaxOperations, "max-operations", 0, "after how many `operations` a version stops protecting; 0 for no limit")
	f.Uint64Var(&in.MaxBytes, "max-bytes", 0, "after how many `bytes` a version stops protecting; 0 for no limit")
	f.BoolVar(&in.SuspendedDecrypts, "suspended-decrypts", false, "let suspended versions go on opening what they sealed")
	return cmd
}

func keyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys",
		Long:    "Lists every key that the caller may know of, in name order, with its active version.",
		Example: "  keyturn key list\n  keyturn key list --json | jq -r '.keys[].name'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list := api.KeyList{Keys: []api.Key{}}
				for k, err := range s.AllKeys(cmd.Context()) {
					if err != nil {
						return err
					}
					list.Keys = append(list.Keys, k)
				}
				return a.show(list, func(t *table) { keyTable(t, list.Keys) })
			})
		},
	}
}

func keyTable(t *table, keys []api.Key) {
	if len(keys) == 0 {
		t.line("No keys yet. Make one: keyturn key create NAME")
		return
	}
	t.row("NAME", "PURPOSE", "ACTIVE", "VERSIONS", "PERIOD", "EXPIRES", "OPERATIONS")
	for _, k := range keys {
		active, expires, operations := "none", any("-"), uint64(0)
		for _, v := range k.Versions {
			if v.State == "active" {
				active, expires = fmt.Sprint(v.Version), v.Expires
			}
			operations += v.Operations
		}
		t.row(k.Name, k.Purpose, active, len(k.Versions), k.Period, expires, operations)
	}
}

func keyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a key and its versions",
		Long:    "Shows a key with every version: its state, since when, until when, and what it has protected.",
		Example: "  keyturn key show phi\n  keyturn key show phi --json | jq '.versions[] | select(.state == \"active\")'",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				k, err := s.Key(cmd.Context(), args[0])
				return a.showKey(k, err)
			})
		},
	}
}

func keyRotate(a *app) *cobra.Command {
	var in api.RotateKeyRequest
	var all bool
	var purpose string
	var e emergencyFlags
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Make a new active version; the old ones go on opening",
		Long: `Makes a new version, which protects from now on. The version before is deactivated: it opens what it sealed and seals no
more. No data is touched; move what stands under the old version with 'keyturn dataset reencrypt'. A suspended key is
refused (exit status 5) until it is resumed, and one whose versions are all destroyed, or about to be; one that was
disabled gets an active version again.

With --emergency it answers a compromise, in one go: opens an incident, makes new versions, marks the versions of
--compromised as compromised (those active now, if none is named), so that they open only for callers with
key.decrypt-compromised, re-encrypts every dataset of those keys ahead of all other work, and writes down who could have
used the versions and who did. It waits until all of that is done. It takes incident.write, and key.rotate and
key.compromise on every key; what is wrong is said before anything is changed, and --dry-run stops there: it says which
keys would be rotated, which versions would be marked, who may use them, and which datasets hold them. Killed, or
interrupted, the work goes on where it was with 'keyturn job watch'; don't say --emergency again, which opens another
incident. With --json the incident stands at .incident, waited for or not; what came of it stands beside it, as in
'keyturn incident show'.`,
		Example: `  keyturn key rotate phi
  keyturn key rotate phi --emergency --reason "laptop stolen" --compromised phi:3
  keyturn key rotate --purpose phi --emergency --reason "ward server broken into" --severity critical
  keyturn key rotate --all --emergency --reason "laptop stolen" --compromised phi:3 --dry-run`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 && !all && purpose == "" || len(given) > 1 {
				return args("NAME")(cmd, given)
			}
			return nil // whichKeys says what is wrong
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			which, err := whichKeys(args, all, purpose)
			if err != nil {
				return err
			}
			if in.Emergency {
				which.Reason = in.Reason
				e.dryRun = in.DryRun
				return a.emergency(cmd, which, &e)
			}
			if err := onlyEmergency(cmd); err != nil {
				return err
			}
			if all || purpose != "" {
				return a.rotateAll(cmd, in, purpose)
			}
			return a.with(cmd.Context(), func(s *store) error {
				if in.DryRun {
					return a.planRotation(cmd.Context(), s, args[0], in)
				}
				k, err := s.RotateKey(cmd.Context(), args[0], in)
				return a.showKey(k, err)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Reason, "reason", "", "`why`, for the audit log; needed with --emergency")
	f.BoolVar(&in.Emergency, "emergency", false, "open an incident, mark versions compromised and move the data, too")
	versionVar(f, &in.IfVersion, "if-version", "refuse unless this `version` is the active one now")
	f.BoolVar(&in.DryRun, "dry-run", false, "say what would be done, and change nothing")
	f.BoolVar(&all, "all", false, "rotate every key that has an active version")
	f.StringVar(&purpose, "purpose", "", "rotate every key of this `purpose` that has an active version")
	e.register(cmd)
	return cmd
}

// rotationPlan is what a rotation prints with --dry-run.
type rotationPlan struct {
	DryRun  bool              `json:"dryRun"` // true
	Keys    []plannedRotation `json:"keys"`
	Skipped []skippedKey      `json:"skipped"`
}

// plannedRotation is a key with the version that would stop protecting, 0 where none does, and the one that would begin.
type plannedRotation struct {
	Key  string `json:"key"`
	From uint32 `json:"from,omitempty"`
	To   uint32 `json:"to"`
}

type skippedKey struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// activeVersion is the number of a key's active version, 0 when it has none.
func activeVersion(k api.Key) uint32 {
	for _, v := range k.Versions {
		if v.State == "active" {
			return v.Version
		}
	}
	return 0
}

// planRotation shows what rotating one key would do.
func (a *app) planRotation(ctx context.Context, s *store, name string, in api.RotateKeyRequest) error {
	before, err := s.Key(ctx, name)
	if err != nil {
		return err
	}
	after, err := s.RotateKey(ctx, name, in)
	if err != nil {
		return err
	}
	return a.showRotationPlan(rotationPlan{
		DryRun: true, Keys: []plannedRotation{{before.Name, activeVersion(before), activeVersion(after)}}, Skipped: []skippedKey{},
	})
}

func (a *app) showRotationPlan(p rotationPlan) error {
	return a.show(p, func(t *table) {
		t.line("Nothing was changed. This would rotate %s:", numberOf(int64(len(p.Keys)), "key"))
		section(t, len(p.Keys), "KEY\tFROM\tTO", func(n int) { t.row(p.Keys[n].Key, orDash(p.Keys[n].From), p.Keys[n].To) })
		section(t, len(p.Skipped), "SKIPPED\tWHY", func(n int) { t.row(p.Skipped[n].Key, p.Skipped[n].Why) })
	})
}

// rotateAll rotates key after key. One that can't be rotated, doesn't keep the others from it; the first refusal is
// the command's. One without an active version was retired and is left so.
func (a *app) rotateAll(cmd *cobra.Command, in api.RotateKeyRequest, purpose string) error {
	return a.with(cmd.Context(), func(s *store) error {
		list, plan := api.KeyList{Keys: []api.Key{}}, rotationPlan{DryRun: true, Keys: []plannedRotation{}, Skipped: []skippedKey{}}
		var refused error
		met := 0
		for k, err := range s.AllKeys(cmd.Context()) {
			if err != nil {
				return err
			}
			if purpose != "" && k.Purpose != purpose {
				continue
			}
			met++
			if activeVersion(k) == 0 {
				why := whyInactive(cmd.Context(), s, k.Name)
				if plan.Skipped = append(plan.Skipped, skippedKey{k.Name, why}); !in.DryRun {
					a.note("%s: skipped, %s", k.Name, why)
				}
				continue
			}
			rotated, err := s.RotateKey(cmd.Context(), k.Name, in)
			if err != nil {
				message, _, _ := keyturn.Explain(err)
				a.note("%s: %s", k.Name, printable(message))
				if refused == nil {
					refused = err
				}
				continue
			}
			list.Keys = append(list.Keys, rotated)
			plan.Keys = append(plan.Keys, plannedRotation{k.Name, activeVersion(k), activeVersion(rotated)})
		}
		if met == 0 && purpose != "" {
			return fault.New(api.CodeNotFound, "rotating keys: none has this purpose").WithField("purpose").WithNext("see which purposes there are: keyturn key list")
		}
		if in.DryRun {
			if err := a.showRotationPlan(plan); err != nil {
				return err
			}
			return refused
		}
		err := a.show(list, func(t *table) {
			if len(list.Keys) == 0 && met > 0 {
				t.line("No key was rotated.")
				return
			}
			keyTable(t, list.Keys)
		})
		if err != nil {
			return err
		}
		return refused
	})
}

// whyInactive says why a key has no active version, and what gives it one.
func whyInactive(ctx context.Context, s *store, name string) string {
	_, err := s.RotateKey(ctx, name, api.RotateKeyRequest{DryRun: true})
	if err == nil {
		return "it has no active version; keyturn key rotate " + name + " gives it one"
	}
	message, _, next := keyturn.Explain(err)
	if next != "" {
		message += "; " + next
	}
	return printable(message)
}

// showKey prints a key, unless the call that made it failed.
func (a *app) showKey(k api.Key, err error) error {
	if err != nil {
		return err
	}
	return a.show(k, func(t *table) {
		t.row("key", k.Name)
		t.row("id", k.ID)
		t.row("purpose", k.Purpose)
		t.row("algorithm", fmt.Sprintf("%s, suite %d", k.Algorithm, k.Suite))
		t.row("period", limits(k))
		t.line("")
		t.row("VERSION", "STATE", "ACTIVATED", "EXPIRES", "DESTROYED ON", "OPERATIONS", "BYTES")
		for _, v := range k.Versions {
			t.row(v.Version, v.State, v.Activated, v.Expires, v.DestroyAt, v.Operations, v.Bytes)
		}
	})
}

// limits is the cryptoperiod in words.
func limits(k api.Key) string {
	var parts []string
	if k.Period != "" {
		parts = append(parts, k.Period)
	}
	if k.MaxOperations > 0 {
		parts = append(parts, grouped(int64(k.MaxOperations))+" operations")
	}
	if k.MaxBytes > 0 {
		parts = append(parts, grouped(int64(k.MaxBytes))+" bytes")
	}
	if len(parts) == 0 {
		return "no limit"
	}
	return strings.Join(parts, ", ")
}
