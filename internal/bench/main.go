// Command bench measures keyturn against the goals of docs/performance.md. Every goal is a ratio, or a figure beside a
// reference that is measured in the same run on the same machine, because absolute figures drift from machine to
// machine. It builds nothing: `make bench` builds bin/keyturn first, and this program drives that binary as its users do
// (serve, HTTP, the command line) next to the reference: a null net/http handler, the bare primitives, a bare SQL UPDATE.
//
// It prints one table (what, keyturn, reference, ratio, goal, met or not), writes the same as JSON, and exits 0 whatever
// the figures are: a benchmark reports, it does not judge a build. A goal that could not be run says "not run" and why.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the table.
type row struct {
	Goal      string `json:"goal"`
	What      string `json:"what"`
	Keyturn   string `json:"keyturn"`
	Reference string `json:"reference"`
	Ratio     string `json:"ratio"`
	Spread    string `json:"spread,omitempty"`
	Target    string `json:"target"`
	Met       string `json:"met"` // yes, no, not run
}

// goal is one measurement; it may give several rows.
type goal struct {
	id, title string
	run       func(*env) ([]row, error)
}

// goals in the order in which they run: the quick ones first.
var goals = []goal{
	{"S1", "encrypt and decrypt over HTTP, 64 connections, durable audit", benchHTTP},
	{"S2", "encrypt over HTTP, 1 connection", benchSingle},
	{"S3", "batches of 100 over HTTP, 16 connections", benchBatch},
	{"V", "encrypt over HTTP beside Vault's Transit", benchVault},
	{"S4", "SDK envelope with a cached data key", benchEnvelope},
	{"S5", "re-encrypting rows, nobody else writes", benchReencrypt},
	{"S5", "re-encrypting rows in MariaDB", benchReencryptMariaDB},
	{"S6", "re-encrypting under a concurrent load", benchUnderLoad},
	{"S6", "re-encrypting under a concurrent load in MariaDB", benchUnderLoadMariaDB},
	{"S8", "start, memory, size with 10,000 keys", benchStart},
	{"S9", "growth with the number of keys", benchGrowth},
	{"S10", "audit verify and query", benchAudit},
	{"R", "rotation check over 100,000 keys", benchCheck},
	{"S11", "emergency rotation of 1,000 keys", benchEmergency},
	{"S12", "one to three nodes on one PostgreSQL", benchNodes},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "null-handler" {
		if err := nullHandler(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var (
		binary = flag.String("binary", "bin/keyturn", "the keyturn binary to measure")
		out    = flag.String("json", "", "also write the table to this file")
		only   = flag.String("only", "", "comma-separated goals, e.g. S1,S5; empty = all")
		pairs  = flag.Int("pairs", 5, "alternating pairs for each ratio")
		span   = flag.Duration("span", 3*time.Second, "length of one measurement")
		rows   = flag.Int("rows", 1_000_000, "rows of the re-encryption tables")
		events = flag.Int("events", 1_000_000, "events of the audit log to verify")
		growth = flag.Int("growth", 10_000, "keys of the larger store of S8 and S9")
	)
	flag.Parse()
	e, err := newEnv(*binary)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	defer e.close()
	e.pairs, e.span, e.rows, e.events, e.growth = *pairs, *span, *rows, *events, *growth
	table := runGoals(e, *only)
	print(table)
	if *out != "" {
		if err := writeJSON(*out, table); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

func runGoals(e *env, only string) []row {
	var table []row
	for _, g := range goals {
		if only != "" && !strings.Contains(","+only+",", ","+g.id+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s…\n", g.id, g.title)
		rows, err := g.run(e)
		table = append(table, rows...)
		if err != nil {
			table = append(table, row{Goal: g.id, What: g.title, Met: "not run", Target: notRun(err)})
		}
	}
	return table
}

func notRun(err error) string {
	text := err.Error()
	if i := strings.IndexByte(text, '\n'); i > 0 {
		text = text[:i]
	}
	return text
}

func print(table []row) {
	fmt.Printf("%s, %d cores, %s\n", runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "goal\twhat\tkeyturn\treference\tratio\tspread\ttarget\tmet")
	for _, r := range table {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Goal, r.What, r.Keyturn, r.Reference, r.Ratio, r.Spread, r.Target, r.Met)
	}
	w.Flush()
}

func writeJSON(path string, table []row) error {
	text, err := json.MarshalIndent(map[string]any{
		"go": runtime.Version(), "cores": runtime.NumCPU(), "taken": time.Now().UTC(), "rows": table}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func met(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}
