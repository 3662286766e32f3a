package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// app is one run of the command line: where it reads and writes, and what the flags of every command said.
type app struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // whether err is one: progress bars and questions

	json      bool
	dir       string
	server    string
	ca        string
	tokenFile string
}

func newApp(in io.Reader, out, err io.Writer) *app {
	return &app{in: in, out: out, err: err, terminal: isTerminal(err)}
}

// globalFlags are the flags of every command; each has an environment variable for its default.
func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print one JSON document on stdout")
	f.StringVar(&a.dir, "dir", "", "data `directory` (KEYTURN_DIR; default: keyturn/ in your data directory)")
	f.StringVar(&a.server, "server", "", "work on the server at this `URL`: https://HOST:PORT, http://127.0.0.1:PORT or unix:///PATH (KEYTURN_SERVER)")
	f.StringVar(&a.ca, "ca", "", "trust the certificate authorities in this PEM `file` (KEYTURN_CA; default: the data directory's own)")
	f.StringVar(&a.tokenFile, "token-file", "", "read the bearer token from this `file` (KEYTURN_TOKEN_FILE; or the token itself in KEYTURN_TOKEN)")
}

// run executes one command line and returns its exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := rootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return api.ExitDone
	}
	var said exit
	if errors.As(err, &said) {
		return int(said)
	}
	a.report(cmd, err)
	return keyturn.CodeOf(err).ExitStatus()
}

// exit is the error of a command that has said everything already and only needs a status.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// report prints an error: what, which field, what next. Never a stack, never a value.
func (a *app) report(cmd *cobra.Command, err error) {
	message, field, next := keyturn.Explain(err)
	field = flagOf(cmd, field)
	fmt.Fprintln(a.err, "keyturn:", message)
	if field != "" {
		fmt.Fprintln(a.err, "  field:", field)
	}
	if next != "" {
		fmt.Fprintln(a.err, "  next: ", next)
	}
}

// flagOf is the flag of a command that a field of the API is set by, or the field's own name: batchSize is --batch-size, and
// versions come from --version.
func flagOf(cmd *cobra.Command, field string) string {
	if cmd == nil || field == "" || cmd.Flags().Lookup(field) != nil {
		return field
	}
	var dashed strings.Builder
	for _, r := range field {
		if unicode.IsUpper(r) {
			dashed.WriteByte('-')
		}
		dashed.WriteRune(unicode.ToLower(r))
	}
	names := []string{dashed.String(), strings.TrimSuffix(field, "s")}
	if part, ok := strings.CutPrefix(field, "from."); ok { // of dataset encrypt's source
		names = []string{part, "from-" + part, map[string]string{"format": "from", "keys": "from-key-file", "plaintextToo": "unencrypted-too"}[part]}
	}
	if cmd.CommandPath() == "keyturn incident open" && field == "versions" {
		names = []string{"key"}
	}
	if cmd.CommandPath() == "keyturn key import" && field == "material" {
		names = []string{"in"}
	}
	for _, name := range names {
		if cmd.Flags().Lookup(name) != nil {
			return name
		}
	}
	return field
}

// note prints a line for people on stderr.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// show prints the result of a command: v as JSON, or what text writes for people.
func (a *app) show(v any, text func(*table)) error {
	if a.json {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		return writing(enc.Encode(v))
	}
	t := newTable(a.out)
	text(t)
	return writing(t.flush())
}

// write prints bytes as they are.
func (a *app) write(b []byte) error {
	_, err := a.out.Write(b)
	return writing(err)
}

// writing says what an error of stdout or of a file means: a result that doesn't arrive is a failure.
func writing(err error) error {
	if err == nil {
		return nil
	}
	return fault.Wrap(api.CodeUnavailable, err, "writing the result")
}

// with runs f on a store and closes it. A store's own failure to close is the command's.
func (a *app) with(ctx context.Context, f func(*store) error) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	err = f(s)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return err
}

// usage is the error of a command line that can't be right.
func usage(field, format string, args ...any) *fault.Error {
	return fault.Newf(api.CodeInvalid, format, args...).WithField(field)
}

// notNegative refuses a number below 0, which would be taken for none given.
func notNegative(flag string, n int) error {
	if n >= 0 {
		return nil
	}
	return usage(flag, "reading --%s: it is negative", flag).WithNext("give a number from 0 on")
}

// fromEnv is a flag's value, or the environment's when the flag wasn't given.
func fromEnv(flag, name string) string {
	if flag != "" {
		return flag
	}
	return strings.TrimSpace(os.Getenv(name))
}
