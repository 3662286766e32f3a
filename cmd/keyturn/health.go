package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/buildinfo"
)

func doctorCommand(a *app) *cobra.Command {
	var strict bool
	return withFlags(&cobra.Command{
		Use: "doctor", Short: "Check the health of the store",
		Long: `Checks that every key-encryption key opens under every master key, that the store is durable, that the audit log is intact,
that the clock is sane, and more; what fails is said with its cure. Exit status 1 when a check fails; with --strict, also
when there is a warning.`,
		Example: "  keyturn doctor\n  keyturn doctor --strict --json | jq '.checks[] | select(.ok | not)'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				d, err := s.Doctor(cmd.Context())
				if err != nil {
					return err
				}
				if strict {
					d.OK = d.OK && !slices.ContainsFunc(d.Checks, func(c api.DoctorCheck) bool { return !c.OK && c.Severity == "warning" })
				}
				if err := a.show(d, func(t *table) { doctorTable(t, d) }); err != nil {
					return err
				}
				if !d.OK {
					return exit(api.ExitFailed)
				}
				return nil
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for failures")
	})
}

func doctorTable(t *table, d api.Doctor) {
	for _, c := range d.Checks {
		mark := "ok"
		if !c.OK {
			mark = map[string]string{"error": "FAILED", "warning": "warning", "info": "note"}[c.Severity]
		}
		t.row(mark, c.Name, c.Detail)
		if !c.OK && c.Fix != "" {
			t.row("  ->", " ", c.Fix)
		}
	}
	if d.OK {
		t.line("Healthy.")
	} else {
		t.line("Not healthy: see above.")
	}
}

func statusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "One screen of the whole store",
		Long:    "Shows keys by state, what is overdue, jobs, datasets, principals and the head of the audit log, on one screen.",
		Example: "  keyturn status",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				st, err := s.Status(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(st, func(t *table) { statusTable(t, st) })
			})
		},
	}
}

func statusTable(t *table, s api.Status) {
	t.row("keyturn", s.Version+", "+s.Environment)
	t.row("store", s.Store)
	t.row("since", s.Started)
	t.row("keys", s.Keys)
	t.row("versions", countsOf(s.Versions))
	t.row("overdue", strings.Join(s.Overdue, ", "))
	t.row("datasets", s.Datasets)
	t.row("jobs", countsOf(s.Jobs))
	t.row("incidents", countsOf(s.Incidents))
	t.row("principals", s.Principals)
	t.row("audit log", grouped(int64(s.Audit.Events))+" events")
	t.row("checkpoint", fmt.Sprintf("at %s events, %s", grouped(int64(s.Audit.CheckpointSize)), cell(s.Audit.CheckpointAt)))
	t.row("FIPS 140-3", fipsText(s.FIPS))
}

// countsOf is a map of counts as text, in the order of its names.
func countsOf(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", m[name], name))
		}
	}
	return strings.Join(parts, ", ")
}

func fipsText(f api.FIPS) string {
	state := "off"
	switch {
	case f.Enforced:
		state = "on, enforced"
	case f.Enabled:
		state = "on"
	}
	return state + ", Go Cryptographic Module " + f.Version
}

// builtAs is what `version --json` prints.
type builtAs struct {
	Version string   `json:"version"`
	Go      string   `json:"go"`
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	FIPS    api.FIPS `json:"fips"`
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which keyturn this is",
		Long:    "Says which keyturn this is, by which Go it was built, and how the Go Cryptographic Module runs.",
		Example: "  keyturn version --json",
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			enabled, enforced, module := buildinfo.FIPS()
			v := builtAs{buildinfo.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH, api.FIPS{Enabled: enabled, Enforced: enforced, Version: module}}
			return a.show(v, func(t *table) {
				t.row("keyturn", v.Version)
				t.row("built with", v.Go+" for "+v.OS+"/"+v.Arch)
				t.row("FIPS 140-3", fipsText(v.FIPS))
			})
		},
	}
}
