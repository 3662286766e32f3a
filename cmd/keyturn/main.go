// Command keyturn is the server and the command line of keyturn: keys, their rotation, and the data that hangs on them.
//
//	keyturn init
//	keyturn key create phi --purpose phi --period 90d
//	echo -n 900-05-1120 | keyturn encrypt phi --context patient=17
//
// It works on a data directory in process or on a server, by the same code: every verb is a call of the SDK's Client
// (package keyturn), and open.go alone decides what stands behind it. Each noun has a file of its own; main.go is the
// table of them. Data goes to stdout, everything else to stderr; --json prints one document of package api. What the
// exit statuses mean is said in package api.
//
// No secret is taken from a command line, where other users of the machine can read it: tokens come from KEYTURN_TOKEN or
// a file, values from stdin, a file or a prompt.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/buildinfo"
	"github.com/keyturn/keyturn/internal/material"
)

// nouns is the command line: one row a noun, in the order of the help text.
var nouns = []struct {
	group   string
	command func(*app) *cobra.Command
}{
	{groupStart, initCommand},
	{groupStart, serveCommand},
	{groupStart, demoCommand},
	{groupStart, doctorCommand},
	{groupStart, statusCommand},
	{groupKeys, masterCommand},
	{groupKeys, escrowCommand},
	{groupKeys, keyCommand},
	{groupKeys, policyCommand},
	{groupKeys, rotationCommand},
	{groupKeys, encryptCommand},
	{groupKeys, decryptCommand},
	{groupKeys, rewrapCommand},
	{groupKeys, inspectCommand},
	{groupData, datasetCommand},
	{groupData, jobCommand},
	{groupWho, principalCommand},
	{groupWho, roleCommand},
	{groupWho, whoamiCommand},
	{groupProof, incidentCommand},
	{groupProof, auditCommand},
	{groupProof, reportCommand},
	{groupProof, versionCommand},
}

// The groups of the help text.
const (
	groupStart = "start"
	groupKeys  = "keys"
	groupData  = "data"
	groupWho   = "who"
	groupProof = "proof"
)

func main() {
	if err := material.Harden(); err != nil {
		os.Stderr.WriteString("keyturn: warning: " + err.Error() + "\n")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	status := newApp(os.Stdin, os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// rootCommand assembles the table.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "keyturn",
		Short:         "Keeps keys, turns them over, moves the data that hangs on the old ones, and proves it",
		Long:          rootHelp,
		Version:       buildinfo.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: `  keyturn init
  keyturn key create phi --purpose phi --period 90d
  echo -n 900-05-1120 | keyturn encrypt phi --context patient=17`,
	}
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "To begin with:"},
		&cobra.Group{ID: groupKeys, Title: "Keys and what they protect:"},
		&cobra.Group{ID: groupData, Title: "Data in databases:"},
		&cobra.Group{ID: groupWho, Title: "Who may:"},
		&cobra.Group{ID: groupProof, Title: "Proof:"},
	)
	for _, noun := range nouns {
		cmd := noun.command(a)
		cmd.GroupID = noun.group
		root.AddCommand(cmd)
	}
	a.globalFlags(root)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommandGroupID(groupProof)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return root
}

const rootHelp = `keyturn keeps an organisation's encryption keys, turns them over on schedule or in an emergency, moves the data that
still hangs on the old ones, and proves all of it in an audit log that verifies offline.

Where a command works: with --server, on that server; else on the server that runs on the data directory (--dir), by its
socket; and if none runs, on the directory itself, in this process. All commands work in all three ways.

Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 refused by a rule (conflict, wrong state, still in use),
6 integrity failure (tampered, corrupt, wrong key or context).`
