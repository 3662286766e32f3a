package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// noun is a command that only has verbs.
func noun(name, short, long, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long, Example: example,
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return missingVerb(cmd) },
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// missingVerb is what a noun alone answers: its help, and the status of a wrong command line.
func missingVerb(cmd *cobra.Command) error {
	names := verbs(cmd)
	return usage("command", "%swhat is to be done is missing", where(cmd)).
		WithNext("one of " + strings.Join(names, ", ") + "; see " + cmd.CommandPath() + " --help")
}

// unknownVerb refuses a verb that a noun doesn't have and names the nearest.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	next := "see " + cmd.CommandPath() + " --help"
	if near := nearest(args[0], verbs(cmd)); near != "" {
		next = "did you mean " + cmd.CommandPath() + " " + near + "?"
	}
	return usage("command", "%sno such command", where(cmd)).WithNext(next)
}

// where names a command in an error: "key rotate: ", and nothing for keyturn itself.
func where(cmd *cobra.Command) string {
	if path := strings.TrimPrefix(cmd.CommandPath(), "keyturn"); path != "" {
		return path[1:] + ": "
	}
	return ""
}

func verbs(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// flagError turns pflag's errors, which quote values, into ours, which don't.
func flagError(cmd *cobra.Command, err error) error {
	help := "see " + cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if near := nearest(name, flagNames(cmd)); near != "" {
			help = "did you mean --" + near + "?"
		}
		if len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' }) {
			name = "given"
		}
		return usage(name, "%sno such flag", where(cmd)).WithNext(help)
	case errors.As(err, &missing):
		return usage(missing.GetSpecifiedName(), "%sthis flag needs a value", where(cmd)).WithNext(help)
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		var own *fault.Error
		if errors.As(err, &own) {
			return own.WithField(f.Name)
		}
		return usage(f.Name, "%sthis flag takes a %s", where(cmd), kindOf(f)).WithNext(help)
	}
	return usage("flags", "%sthese flags can't be read", where(cmd)).WithNext(help)
}

// versionNumber is a flag's value. 0 is "not said" to the API, and who says it means something else.
type versionNumber uint32

func versionVar(f *pflag.FlagSet, to *uint32, name, help string) {
	f.Var((*versionNumber)(to), name, help)
}

func (v *versionNumber) Set(text string) error {
	n, err := strconv.ParseUint(text, 0, 32)
	if err == nil && n == 0 {
		err = fault.New(api.CodeInvalid, "versions are numbered from 1 on").WithNext("say the number of one, or leave the flag away")
	}
	*v = versionNumber(n)
	return err
}

func (v *versionNumber) String() string { return strconv.FormatUint(uint64(*v), 10) }

func (v *versionNumber) Type() string { return "uint32" } // for kindOf

// kindOf says what a flag takes.
func kindOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "uint32", "uint64":
		return "whole number"
	case "bool":
		return "true or false"
	case "duration":
		return "duration such as 90s or 12h"
	}
	return "value of another form"
}

func flagNames(cmd *cobra.Command) (names []string) {
	add := func(f *pflag.Flag) { names = append(names, f.Name) }
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return names
}

// nearest is the name that what was typed probably means, or empty.
func nearest(typed string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if len(typed) >= 2 && strings.HasPrefix(name, typed) {
			return name
		}
		if d := edits(typed, name); d < distance && d < len(name) {
			best, distance = name, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			swap := before[j]
			if a[i] != b[j] {
				swap++
			}
			row[j+1] = min(swap, before[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// takesValues are the commands to which somebody might say a secret as an argument.
var takesValues = []string{"keyturn encrypt", "keyturn decrypt", "keyturn inspect", "keyturn rewrap", "keyturn key import", "keyturn escrow verify"}

// args wants exactly the named arguments.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			name := names[len(given)]
			return usage(strings.ToLower(name), "%s%s is missing", where(cmd), name).WithNext("see " + cmd.CommandPath() + " --help")
		case len(given) > len(names):
			takes := "it takes none"
			if len(names) > 0 {
				takes = "it takes " + strings.Join(names, " and ")
			}
			if slices.Contains(takesValues, cmd.CommandPath()) {
				takes += "; values are read from stdin or a file, never from the command line"
			}
			return usage("arguments", "%stoo many arguments", where(cmd)).WithNext(takes + "; see " + cmd.CommandPath() + " --help")
		}
		return nil
	}
}
