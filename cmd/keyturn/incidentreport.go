package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

func incidentReport(a *app) *cobra.Command {
	var out, format string
	return withFlags(&cobra.Command{
		Use: "report ID", Short: "Write the evidence of an incident to a file",
		Long: `Writes what happened, when, whom it concerns, what was done and what is left: one HTML file that needs nothing beside
it, or the same as JSON. Every action stands there with its place in the audit log (shard and index), and the signed
checkpoint covers all of these places. So it can be checked against an export that somebody else keeps: 'keyturn audit
export', 'keyturn audit verify', and the line at that place is the event. The file is made anew (0600); one that exists
is never replaced.`,
		Example: "  keyturn incident report inc-… --out incident.html\n  keyturn incident report inc-… --format json --out incident.json",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := reportFormats[format]
			switch {
			case !ok:
				return usage("format", "incident report: the format is unknown").WithNext("use html or json")
			case out == "" || out == "-":
				return usage("out", "incident report: the file is missing").WithNext("say --out FILE: evidence is kept, not scrolled past")
			}
			return a.with(cmd.Context(), func(s *store) error {
				r, err := s.IncidentReport(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.toFile(out, func() error { return writing(write(a.out, &r)) }); err != nil {
					return err
				}
				for _, what := range r.Report.Withheld {
					a.note("withheld: %s", what)
				}
				done := struct {
					File    string `json:"file"`
					Actions int    `json:"actions"`
				}{out, len(r.Actions)}
				return a.show(done, func(t *table) { t.line("%d actions written to %s.", len(r.Actions), out) })
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&out, "out", "", "write to this new `file` (0600) (required)")
		cmd.Flags().StringVar(&format, "format", "html", "the file's `format`: html or json")
	})
}

// reportFormats write the same struct in two ways.
var reportFormats = map[string]func(io.Writer, *api.IncidentReport) error{
	"json": func(w io.Writer, r *api.IncidentReport) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	},
	"html": writeReport,
}

// writeReport writes one page without scripts. Everything of the report stands in it as text; the policy in its head lets a
// browser load nothing and use no style but the page's own, whatever stands in a reason.
func writeReport(w io.Writer, r *api.IncidentReport) error {
	sum := sha256.Sum256([]byte(reportStyle))
	page, err := template.New("report").Funcs(template.FuncMap{
		"time": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000 UTC") },
		"rows": remainingText, "left": leftText, "held": heldText,
	}).Parse(reportPage)
	if err != nil {
		return err
	}
	return page.Execute(w, struct {
		*api.IncidentReport
		Policy string
		Style  template.CSS
	}{r, "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", reportStyle})
}

const reportStyle = `body{font:14px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#111}` +
	`table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}th,td{border:1px solid #bbb;padding:.25em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere}` +
	`th{background:#eee}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f6;padding:.5em}@media print{body{margin:0;max-width:none}}`

const reportPage = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{.Policy}}">
<title>Incident {{.Report.Incident.ID}}</title><style>{{.Style}}</style></head><body>
{{with .Report.Incident}}<h1>Incident {{.ID}}</h1>
<table>
<tr><th>Type</th><td>{{.Type}}</td></tr><tr><th>Severity</th><td>{{.Severity}}</td></tr><tr><th>State</th><td>{{.State}}</td></tr>
<tr><th>Opened</th><td>{{time .Opened}} by {{.OpenedBy}}{{if .Emergency}}, as an emergency rotation of {{.Keys}} keys{{end}}</td></tr>
<tr><th>Reason</th><td>{{.Reason}}</td></tr>
{{with .Details}}<tr><th>Details</th><td><pre>{{.}}</pre></td></tr>{{end}}
{{if .Closed}}<tr><th>Closed</th><td>{{time .Closed}} by {{.ClosedBy}}: {{.ClosedReason}}</td></tr>{{end}}
</table>{{end}}
<p>Written {{time .Generated}} by {{.GeneratedBy}} with keyturn {{.Version}} from store {{.StoreID}}.</p>
{{with .Report}}
{{range .Withheld}}<p><strong>Withheld: {{.}}</strong></p>{{end}}
<h2>What is left</h2>
<p>Values under compromised versions, counted {{time .TakenAt}}: <strong>{{rows .Remaining}}</strong>. Job {{.Incident.Job}}: {{.JobState}}.</p>
<h2>Keys</h2>
<table><tr><th>Key</th><th>Active when opened</th><th>Active now</th><th>Versions concerned</th></tr>
{{range .KeyProgress}}<tr><td>{{.Key}}</td><td>{{if .From}}{{.From}}{{end}}</td><td>{{if .Active}}{{.Active}}{{end}}</td><td>{{range .Versions}}{{.Version}}: {{.State}} {{end}}{{.Problem}}</td></tr>
{{end}}</table>
<h2>Datasets</h2>
<table><tr><th>Dataset</th><th>Held</th><th>Remaining</th><th>Re-encryption</th></tr>
{{range .Datasets}}<tr><td>{{.Dataset}}</td><td>{{held .Held}}</td><td>{{left .}}</td><td>{{.Job}} {{.JobState}}</td></tr>
{{end}}</table>
<h2>Who could use the versions, and who did</h2>
<p>Rights as they were when the incident's job looked; uses by the audit log until then. A batch is one event: &ldquo;perhaps&rdquo; counts batches of the key that name another version as their last.</p>
<table><tr><th>Version</th><th>Could</th><th>Did</th></tr>
{{range .Uses}}<tr><td>{{.Key}}:{{.Version}}<br>until {{time .Until}}</td>
<td>{{range .Could}}{{.Principal}} ({{.Role}}{{if .Disabled}}, disabled{{end}}): {{range .Actions}}{{.}} {{end}}<br>{{end}}</td>
<td>{{range .Did}}{{.User}}: {{.Events}} times{{if .Possible}}, perhaps {{.Possible}} more{{end}}, {{time .First}} to {{time .Last}}<br>{{end}}</td></tr>
{{end}}</table>
<h2>Timeline</h2>
<table><tr><th>When</th><th>By</th><th>What</th></tr>
{{range .Timeline}}<tr><td>{{time .At}}</td><td>{{.By}}</td><td><pre>{{.Text}}</pre></td></tr>
{{end}}</table>
{{end}}
<h2>Actions in the audit log</h2>
<p>Each stands at its shard and index in every export of the log. The checkpoint below is signed with the log's key and covers them.</p>
<table><tr><th>Shard</th><th>Index</th><th>When</th><th>Event</th><th>Resource</th><th>By</th><th>Done</th></tr>
{{range .Actions}}<tr><td>{{.Shard}}</td><td>{{.Index}}</td><td>{{time .Time}}</td><td>{{.EventType}}: {{.Action}}</td><td>{{.Resource}}{{if .KeyVersion}} version {{.KeyVersion}}{{end}}</td><td>{{.User}}</td><td>{{if .Success}}yes{{else}}no{{end}}</td></tr>
{{end}}</table>
<h2>Checkpoint</h2><pre>{{.Checkpoint}}</pre>
<p>Public key of the log: <code>{{.PublicKey}}</code></p>
</body></html>
`
