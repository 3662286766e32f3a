package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

func incidentCommand(a *app) *cobra.Command {
	return noun("incident", "Record compromises, see what is left of them, and write the evidence",
		`An incident records that keys, or what protects them, may be known to others: what, when, whom it concerns, what was done. An
emergency rotation opens one by itself: 'keyturn key rotate --emergency'. It stays open until nothing stands under its
compromised versions any more and somebody closes it.`,
		`  keyturn key rotate phi --emergency --reason "laptop stolen" --compromised phi:3
  keyturn incident show inc-…
  keyturn incident report inc-… --out incident.html
  keyturn incident close inc-… --reason "rows moved, laptop wiped"`,
		incidentOpen(a), incidentList(a), incidentShow(a), incidentNote(a), incidentClose(a), incidentReport(a),
	)
}

const (
	incidentTypes      = "key-compromise, credential-leak, device-loss, insider, misconfiguration or other"
	incidentSeverities = "low, medium, high or critical"
)

func incidentOpen(a *app) *cobra.Command {
	var in api.OpenIncidentRequest
	var versions []string
	return withFlags(&cobra.Command{
		Use: "open", Short: "Open an incident that changes no key",
		Long: `Opens an incident and changes no key: for what is still being looked into, or concerns no version. Who could use the versions
that it names, who did by the audit log, and which datasets hold them is found out and kept in it. To rotate keys and mark
versions compromised in one go, use 'keyturn key rotate --emergency' instead.`,
		Example: `  keyturn incident open --type credential-leak --severity medium --reason "token found in a public repository"
  keyturn incident open --type insider --severity high --reason "export at night" --key phi:3 --details - < notes.txt`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			if in.Reason == "" {
				return missingReason("incident open")
			}
			if in.Type == "" {
				return usage("type", "incident open: the type is missing").WithNext("say --type TYPE: " + incidentTypes)
			}
			if in.Severity == "" {
				return usage("severity", "incident open: the severity is missing").WithNext("say --severity SEVERITY: " + incidentSeverities)
			}
			if in.Versions, err = keyVersions("key", versions); err != nil {
				return err
			}
			if in.Details, err = a.details(ctx, in.Details); err != nil {
				return err
			}
			return a.with(ctx, func(s *store) error {
				i, err := s.OpenIncident(ctx, in)
				if err != nil {
					return err
				}
				if j, err := a.watch(ctx, s, i.Job, "job watch "+i.Job, "keys"); err != nil {
					return err
				} else if err := outcomeOf(j); err != nil {
					return err
				}
				return a.showIncident(ctx, s, i.ID)
			})
		},
	}, func(cmd *cobra.Command) {
		f := cmd.Flags()
		f.StringVar(&in.Type, "type", "", "what happened, a `type`: "+incidentTypes+" (required)")
		f.StringVar(&in.Severity, "severity", "", "how bad it is, a `severity`: "+incidentSeverities+" (required)")
		f.StringVar(&in.Reason, "reason", "", "`why`, in one line (required)")
		f.StringVar(&in.Details, "details", "", "more `text`, up to 16 KiB; - reads it from stdin")
		f.StringArrayVar(&versions, "key", nil, "a version that it is about, `KEY:VERSION`; may be repeated")
	})
}

func missingReason(command string) error {
	return usage("reason", "%s: a reason is missing", command).WithNext("say --reason WHY: it is kept in the incident and in the audit log")
}

// details is what --details says, or what stdin holds.
func (a *app) details(ctx context.Context, text string) (string, error) {
	if text != "-" {
		return text, nil
	}
	b, err := a.readInput(ctx, "-", "details", 16<<10)
	return strings.TrimRight(string(b), "\n"), err
}

// keyVersions reads a list of KEY:VERSION. The error doesn't quote what it is about.
func keyVersions(flag string, list []string) ([]api.IncidentVersion, error) {
	var out []api.IncidentVersion
	for n, text := range list {
		key, number, ok := strings.Cut(text, ":")
		version, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil || version == 0 || key == "" {
			return nil, usage(flag, "number %d of --%s isn't a key and a version", n+1, flag).WithNext("write it as KEY:VERSION, e.g. phi:3")
		}
		out = append(out, api.IncidentVersion{Key: key, Version: uint32(version)})
	}
	return out, nil
}

func incidentList(a *app) *cobra.Command {
	var f keyturn.IncidentFilter
	return withFlags(&cobra.Command{
		Use: "list", Short: "List incidents, newest first",
		Long:    "Lists incidents, newest first, a page at a time: --after takes the \"next\" of the page before.",
		Example: "  keyturn incident list\n  keyturn incident list --state open --json | jq -r '.incidents[].id'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Incidents(cmd.Context(), f)
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) { incidentTable(t, list) })
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&f.State, "state", "", "only incidents in this `state`: open or closed")
		cmd.Flags().StringVar(&f.After, "after", "", "begin after this `cursor`")
	})
}

func incidentTable(t *table, list api.IncidentList) {
	if len(list.Incidents) == 0 {
		t.line("No such incidents.")
		return
	}
	t.row("INCIDENT", "TYPE", "SEVERITY", "STATE", "OPENED", "BY", "REASON")
	for _, i := range list.Incidents {
		t.row(i.ID, i.Type, i.Severity, i.State, i.Opened, i.OpenedBy, i.Reason)
	}
	if list.Next != "" {
		t.line("More: keyturn incident list --after %s", list.Next)
	}
}

func incidentShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an incident: scope, progress, what is left",
		Long: `Shows an incident: what it is about, how far each key and dataset has come, how many values still stand under its compromised
versions, counted now, who could use them and who did, and everything that happened in it. A dataset that can't be counted
is shown as unknown, never as done.

Who could use a version takes principal.read, and who did audit.read; without them that part is withheld, and says so.`,
		Example: "  keyturn incident show inc-…\n  keyturn incident show inc-… --json | jq .remaining",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error { return a.showIncident(cmd.Context(), s, args[0]) })
		},
	}
}

func (a *app) showIncident(ctx context.Context, s *store, id string) error {
	d, err := s.Incident(ctx, id)
	if err != nil {
		return err
	}
	return a.show(d, func(t *table) { incidentDetail(t, d) })
}

func incidentNote(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "note ID TEXT", Short: "Add a note to an incident",
		Long:    "Adds a note to an open incident, with your name and the time. Notes are never changed. - reads the text from stdin.",
		Example: "  keyturn incident note inc-… \"laptop wiped remotely\"\n  keyturn incident note inc-… - < minutes.txt",
		Args:    args("ID", "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.details(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				i, err := s.NoteIncident(cmd.Context(), args[0], text)
				return a.showHead(i, err)
			})
		},
	}
}

func incidentClose(a *app) *cobra.Command {
	var reason string
	var removed bool
	return withFlags(&cobra.Command{
		Use: "close ID", Short: "Close an incident of which nothing is left",
		Long: `Closes an incident. It is refused (exit status 5) while its job hasn't done everything, while a dataset holds values
under one of its compromised versions, and while a dataset can't be counted, or was removed with such values
in it, because nobody knows then.`,
		Example: "  keyturn incident close inc-… --reason \"rows moved, laptop wiped\"",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return missingReason("incident close")
			}
			return a.with(cmd.Context(), func(s *store) error {
				close := s.CloseIncident
				if removed {
					close = s.CloseIncidentAnyway
				}
				i, err := close(cmd.Context(), args[0], reason)
				return a.showHead(i, err)
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&reason, "reason", "", "`why` it is over, in one line (required)")
		cmd.Flags().BoolVar(&removed, "datasets-removed", false, "although datasets were removed with values left in them, or uncounted")
	})
}

// showHead prints an incident without what has come of it.
func (a *app) showHead(i api.Incident, err error) error {
	if err != nil {
		return err
	}
	return a.show(i, func(t *table) { incidentHead(t, i) })
}

func incidentHead(t *table, i api.Incident) {
	t.row("incident", i.ID)
	t.row("type", i.Type)
	t.row("severity", i.Severity)
	t.row("state", i.State)
	t.row("opened", cell(i.Opened)+" by "+i.OpenedBy)
	t.row("reason", i.Reason)
	if i.Details != "" {
		for n, line := range strings.Split(i.Details, "\n") {
			t.row(map[bool]string{true: "details", false: " "}[n == 0], line)
		}
	}
	if i.Closed != nil {
		t.row("closed", cell(i.Closed)+" by "+i.ClosedBy)
		t.row("because", i.ClosedReason)
	}
}

// mostLines is how many lines of a kind people are shown; --json has all.
const mostLines = 20

// incidentDetail is an incident for people.
func incidentDetail(t *table, d api.IncidentDetail) {
	incidentHead(t, d.Incident)
	t.row("job", strings.TrimSpace(d.Incident.Job+" "+d.JobState))
	if d.Incident.Emergency {
		t.row("keys", fmt.Sprintf("%d of %d have a new version", d.Rotated, d.Incident.Keys))
	}
	t.row("remaining", remainingText(d.Remaining))
	section(t, len(d.KeyProgress), "KEY\tWAS\tACTIVE\tVERSIONS CONCERNED", func(n int) {
		k := d.KeyProgress[n]
		var states []string
		for _, v := range k.Versions {
			states = append(states, fmt.Sprintf("%d %s", v.Version, v.State))
		}
		t.row(k.Key, orDash(k.From), orDash(k.Active), strings.TrimSpace(strings.Join(states, ", ")+" "+k.Problem))
	})
	section(t, len(d.Datasets), "DATASET\tHELD\tREMAINING\tJOB\tSTATE", func(n int) {
		s := d.Datasets[n]
		t.row(s.Dataset, heldText(s.Held), leftText(s), s.Job, s.JobState)
	})
	section(t, len(d.Uses), "VERSION\tCOULD USE IT\tDID, BY THE AUDIT LOG", func(n int) {
		u := d.Uses[n]
		t.row(fmt.Sprintf("%s:%d", u.Key, u.Version), orWithheld(couldText(u.Could), d.Withheld, api.WithheldCould), orWithheld(didText(u.Did), d.Withheld, api.WithheldDid))
	})
	section(t, len(d.Timeline), "WHEN\tBY\tWHAT", func(n int) {
		e := d.Timeline[n]
		t.row(e.At, e.By, strings.ReplaceAll(e.Text, "\n", " / "))
	})
	for _, what := range d.Withheld {
		t.line("withheld: %s", what)
	}
}

// section writes the first lines of a list under its heading.
func section(t *table, n int, heading string, row func(int)) {
	if n == 0 {
		return
	}
	t.line("")
	var cells []any
	for _, c := range strings.Split(heading, "\t") {
		cells = append(cells, c)
	}
	t.row(cells...)
	for i := range min(n, mostLines) {
		row(i)
	}
	if n > mostLines {
		t.line("and %d more; --json shows all", n-mostLines)
	}
}

func remainingText(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return grouped(*n)
}

// leftText is what is left in a dataset, and what else is to be said of that.
func leftText(d api.IncidentDataset) string {
	what := d.Unknown
	if d.Removed && d.Remaining != nil {
		what = "it was removed, and held nothing under them"
	}
	return strings.TrimSpace(remainingText(d.Remaining) + " " + what)
}

func orDash(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func heldText(held []api.IncidentHeld) string {
	var parts []string
	for _, h := range held {
		parts = append(parts, fmt.Sprintf("%s under %s:%d", remainingText(h.Rows), h.Key, h.Version))
	}
	return strings.Join(parts, ", ")
}

// orWithheld is a list, "withheld" where the caller may not see it, or "nobody".
func orWithheld(list string, kept []string, what string) string {
	switch {
	case slices.ContainsFunc(kept, func(line string) bool { return strings.HasPrefix(line, what) }):
		return "withheld"
	case list == "":
		return "nobody"
	}
	return list
}

func couldText(list []api.IncidentPrincipal) string {
	var names []string
	for n, p := range list {
		if n == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-n))
			break
		}
		names = append(names, p.Principal)
	}
	return strings.Join(names, ", ")
}

func didText(list []api.IncidentUser) string {
	var parts []string
	for n, u := range list {
		if n == 5 {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-n))
			break
		}
		var times []string
		if u.Events > 0 {
			times = append(times, grouped(u.Events)+" times")
		}
		if u.Possible > 0 {
			times = append(times, "perhaps in "+grouped(u.Possible)+" batches or jobs")
		}
		text := u.User + " " + strings.Join(times, " and ")
		parts = append(parts, text+", last "+cell(u.Last))
	}
	return strings.Join(parts, "; ")
}
