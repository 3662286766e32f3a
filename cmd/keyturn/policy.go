package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
)

func policyCommand(a *app) *cobra.Command {
	return noun("policy", "Say when keys are rotated, and what follows",
		`A policy says per key, per purpose and per environment how keys are rotated. Several may be about one key: each part is
taken from the most specific policy that says it (key before purpose before environment; then what was set before
keyturn.yaml before what is shipped).`,
		`  keyturn policy list
  keyturn policy set phi-monthly --purpose phi --schedule "0 0 1 * *" --grace 7d --reencrypt yes
  keyturn policy show phi`,
		policyList(a), policySet(a), policyShow(a), policyRemove(a),
	)
}

func policyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policies",
		Long:    "Lists every policy that holds: the shipped ones, those of keyturn.yaml, and those that were set. What a policy doesn't\nsay is shown as -.",
		Example: "  keyturn policy list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Policies(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) { policyTable(t, list.Policies) })
			})
		},
	}
}

func policyTable(t *table, list []api.Policy) {
	t.row("POLICY", "ABOUT", "PERIOD", "SCHEDULE", "GRACE", "RE-ENCRYPT", "AT ONCE", "BATCH", "ATTEMPTS", "WARN", "FROM")
	for _, p := range list {
		t.row(p.Policy, about(p), p.Period, inZone(p.Schedule, p.Zone), p.Grace, p.Reencrypt, unlessZero(p.Concurrency), unlessZero(p.BatchSize), unlessZero(p.Attempts), p.Warn, p.Origin)
	}
}

// about is a policy's selector in words.
func about(p api.Policy) string {
	var parts []string
	for _, sel := range []struct{ what, value string }{{"key", p.Key}, {"purpose", p.Purpose}, {"environment", p.Environment}} {
		if sel.value != "" {
			parts = append(parts, sel.what+" "+sel.value)
		}
	}
	if len(parts) == 0 {
		return "all keys"
	}
	return strings.Join(parts, ", ")
}

func inZone(schedule, zone string) string {
	if schedule == "" || zone == "" {
		return schedule
	}
	return schedule + " (" + zone + ")"
}

func unlessZero(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func policySet(a *app) *cobra.Command {
	var in api.SetPolicyRequest
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make a policy, or change one",
		Long: `Makes a policy, or changes what the flags name of one that was set before. A rotation check follows at once on a server,
since keys may be due by it. What it doesn't do, because nothing is selected or keys have a period of their own, is said as a
warning. To unset a part, or a selector, take the policy away and set it anew: 'keyturn policy remove NAME'.`,
		Example: `  keyturn policy set quarterly --period 90d
  keyturn policy set phi-monthly --purpose phi --schedule "0 0 1 * *" --grace 7d --reencrypt yes
  keyturn policy set legacy --key legacy --period 0`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := saidNothing(cmd.LocalFlags()); err != nil {
				_, others := rotation.Configured(args[0], in) // with what the server would say, in one answer
				return fault.Join(err, without(others, "policy"))
			}
			return a.with(cmd.Context(), func(s *store) error {
				p, err := s.SetPolicy(cmd.Context(), args[0], in)
				if err != nil {
					return err
				}
				for _, w := range p.Warnings {
					a.note("Warning: %s.", printable(w))
				}
				return a.show(p, func(t *table) { policyTable(t, []api.Policy{p}) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Key, "key", "", "only this `key`")
	f.StringVar(&in.Purpose, "purpose", "", "only keys of this `purpose`")
	f.StringVar(&in.Environment, "environment", "", "only on nodes of this `environment`")
	f.StringVar(&in.Period, "period", "", "rotate at this `age`: 1h to 730d, or 0 for on demand only")
	f.StringVar(&in.Schedule, "schedule", "", "rotate at the times of this cron `expression`; none takes a schedule away")
	f.StringVar(&in.Zone, "zone", "", "the time `zone` of the schedule, such as Europe/Zurich (default UTC)")
	f.StringVar(&in.Grace, "grace", "", "how `long` an old version still counts as in use")
	f.StringVar(&in.Reencrypt, "reencrypt", "", "`yes` or no: whether datasets are moved after a rotation by keyturn itself")
	f.IntVar(&in.Concurrency, "concurrency", 0, "how `many` such re-encryptions run at once, 1 to 16")
	f.IntVar(&in.BatchSize, "batch-size", 0, "how many `rows` they read at once, 1 to 10000")
	f.IntVar(&in.Attempts, "attempts", 0, "how `often` a rotation or a batch is tried, 1 to 20")
	f.StringVar(&in.Warn, "warn", "", "how `long` before its end a version is due soon, shorter than the period (shipped: 7d, or the last sixth of a life of less than 14d)")
	return cmd
}

// without is what of err isn't about a field.
func without(err error, field string) error {
	return fault.Join(slices.DeleteFunc(slices.Clone(fault.Each(err)), func(e error) bool { return fault.FieldOf(e) == field })...)
}

// saidNothing refuses flags whose value the API takes for nothing said, since whoever writes one wants something changed.
func saidNothing(flags *pflag.FlagSet) error {
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		err := usage(f.Name, "policy set: --%s is at least 1", f.Name).WithNext("leave it away to keep what is said already")
		switch f.Value.String() {
		case "0":
			if f.Value.Type() != "int" {
				return
			}
		case "":
			next := map[string]string{"schedule": "say none to take a schedule away", "period": "say 0 for rotation on demand only",
				"grace": "say 0 for none", "warn": "say 0 for no warning"}[f.Name]
			err = usage(f.Name, "policy set: --%s is empty", f.Name).
				WithNext(cmp.Or(next, "leave it away to keep what is said already; to unset it, take the policy away and set it anew: keyturn policy remove NAME"))
		default:
			return
		}
		problems = append(problems, err)
	})
	return fault.Join(problems...)
}

func policyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show KEY", Short: "Show what holds for a key, and which policy says so",
		Long:    "Shows what the policies say for a key, with the policy that each part comes from, and when the key is rotated next.",
		Example: "  keyturn policy show phi",
		Args:    args("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				p, err := s.EffectivePolicy(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(p, func(t *table) { effectiveTable(t, p) })
			})
		},
	}
}

func effectiveTable(t *table, p api.EffectivePolicy) {
	t.row("key", p.Key)
	t.row("purpose", p.Purpose)
	t.row("environment", p.Environment)
	t.row("next rotation", p.Next)
	t.line("")
	t.row("RULE", "VALUE", "FROM")
	for _, r := range []struct{ name, field, value string }{
		{"period", "period", p.Period}, {"schedule", "schedule", p.Schedule}, {"zone", "zone", p.Zone}, {"grace", "grace", p.Grace}, {"re-encrypt", "reencrypt", p.Reencrypt},
		{"re-encryptions at once", "concurrency", unlessZero(p.Concurrency)}, {"batch size", "batchSize", unlessZero(p.BatchSize)},
		{"attempts", "attempts", unlessZero(p.Attempts)}, {"warn before", "warn", p.Warn},
	} {
		t.row(r.name, r.value, p.From[r.field])
	}
}

func policyRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take away a policy that was set",
		Long:    "Takes away a policy that was set. Shipped ones, and those of keyturn.yaml, can only be overridden:\nset one about the same keys, which wins over them.",
		Example: "  keyturn policy remove phi-monthly",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error { return s.RemovePolicy(cmd.Context(), args[0]) })
		},
	}
}
