package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/api"
)

// run runs a command line that needs no store.
func run(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	t.Setenv("KEYTURN_DIR", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KEYTURN_SERVER", "")
	var out, errs bytes.Buffer
	status = newApp(strings.NewReader(stdin), &out, &errs).run(context.Background(), args)
	return out.String(), errs.String(), status
}

// eachCommand visits every command of the table.
func eachCommand(visit func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		visit(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand(newApp(nil, io.Discard, io.Discard)))
}

// TestEveryCommandTeaches: a help text with examples, and flags that say what they take.
func TestEveryCommandTeaches(t *testing.T) {
	n := 0
	eachCommand(func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Long) < 40 || !strings.HasSuffix(strings.TrimSpace(c.Long), ".") {
			t.Errorf("%s: needs a short text without and a long one with a full stop", path)
		}
		if !strings.Contains(c.Example, "keyturn") {
			t.Errorf("%s: needs an example", path)
		}
		for line := range strings.Lines(c.Long) {
			if w := len([]rune(strings.TrimRight(line, "\n"))); w > 126 {
				t.Errorf("%s: a line of %d characters in its help", path, w)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || f.Shorthand == "" && f.Value.Type() != "bool" && !strings.Contains(f.Usage, "`") && !strings.HasPrefix(f.Usage, "as for") {
				t.Errorf("%s --%s: says not what it takes: %q", path, f.Name, f.Usage)
			}
		})
	})
	if n < 60 {
		t.Errorf("saw %d commands only", n)
	}
}

// TestNoSecretFlags: promise P3; nothing on the command line takes a secret.
func TestNoSecretFlags(t *testing.T) {
	eachCommand(func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			for _, word := range []string{"password", "secret", "value", "plaintext", "material"} {
				if strings.Contains(f.Name, word) {
					t.Errorf("%s --%s", c.CommandPath(), f.Name)
				}
			}
			if f.Name == "token" {
				t.Errorf("%s --token", c.CommandPath())
			}
		})
	})
}

// TestUsageErrors: exit status 2, the field, a next step, and never the value that was wrong.
func TestUsageErrors(t *testing.T) {
	cases := []struct {
		line, says string
	}{
		{"kye", "did you mean keyturn key?"},
		{"encypt phi", "did you mean keyturn encrypt?"},
		{"key", "one of compromise, create"},
		{"key rotat phi", "did you mean keyturn key rotate?"},
		{"key CANARY", "no such command"},
		{"key rotate", "NAME is missing"},
		{"key rotate a CANARY", "too many arguments"},
		{"key rotate a --raeson x", "did you mean --reason?"},
		{"key rotate a --CANARY=x", "no such flag"},
		{"key rotate a --reason", "needs a value"},
		{"key destroy phi --version CANARY --yes", "whole number"},
		{"key destroy phi --yes", "the version is missing"},
		{"key export phi --reason x", "--yes"},
		{"key compromise phi", "reason is missing"},
		{"key import phi", "neither 32 raw bytes"},
		{"encrypt phi --context CANARY", "NAME=VALUE"},
		{"encrypt phi --context a=CANARY --context a=2", "twice"},
		{"dataset add p --table t --column a=b", "exactly one of"},
		{"dataset add p --db x --db-env Y --table t --column a=b", "exactly one of"},
		{"dataset decrypt p", "--yes"},
		{"dataset remove p", "--yes"},
		{"master remove env://X", "--yes"},
		{"audit query --since CANARY", "neither a time nor a duration"},
		{"audit export --json", "--out"},
		{"audit verify --key x", "FILE"},
		{"audit verify x", "public key is missing"},
		{"--server http://CANARY.example.org key list", "loopback"},
		{"--server https://user:CANARY@example.org key list", "no user"},
		{"--server CANARY key list", "https://"},
	}
	for _, tc := range cases {
		t.Run(tc.line, func(t *testing.T) {
			out, errs, status := run(t, "", strings.Fields(tc.line)...)
			if status != api.ExitUsage || out != "" || !strings.Contains(errs, tc.says) {
				t.Errorf("status %d, stdout %q, stderr:\n%s", status, out, errs)
			}
			if shown := strings.ReplaceAll(errs, "field: CANARY", ""); strings.Contains(shown, "CANARY") {
				t.Errorf("the error repeats the value:\n%s", errs)
			}
		})
	}
}

func TestStatusesWithoutAStore(t *testing.T) {
	open := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(open, []byte("kt_canary"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		args   []string
		status int
	}{
		{"an input file that isn't there", []string{"inspect", "--in", "/none/such"}, api.ExitNotFound},
		{"an export that isn't there", []string{"audit", "verify", "/none/such", "--key", "/none/such"}, api.ExitNotFound},
		{"a server that isn't there", []string{"--server", "unix:///none/such", "status"}, api.ExitFailed},
		{"a token file that others may read", []string{"--server", "http://127.0.0.1:1", "--token-file", open, "status"}, api.ExitRefused},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, status := run(t, "", tc.args...)
			if status != tc.status || out != "" || !strings.HasPrefix(errs, "keyturn: ") || strings.Contains(errs, "canary") {
				t.Errorf("status %d, want %d; stderr:\n%s", status, tc.status, errs)
			}
		})
	}
}

func TestMasterGenerate(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		out, _, status := run(t, "", "master", "generate")
		key, err := parseMaterial([]byte(out))
		if status != 0 || err != nil || len(key) != 32 || seen[out] {
			t.Fatalf("status %d, %v", status, err)
		}
		seen[out] = true
	}
	file := filepath.Join(t.TempDir(), "key")
	if out, errs, status := run(t, "", "master", "generate", "--out", file); status != 0 || out != "" {
		t.Fatalf("status %d, stdout %q, stderr %s", status, out, errs)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if _, errs, status := run(t, "", "master", "generate", "--out", file); status != api.ExitRefused || !strings.Contains(errs, "exists") {
		t.Errorf("overwriting: status %d, %s", status, errs)
	}
}

var update = flag.Bool("update", false, "write docs/cli.md anew")

// TestReferenceIsCurrent holds docs/cli.md to the commands: go test ./cmd/keyturn -run Reference -update writes it.
func TestReferenceIsCurrent(t *testing.T) {
	const file = "../../docs/cli.md"
	want := reference()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("docs/cli.md isn't what the commands say: go test ./cmd/keyturn -run Reference -update (%v)", err)
	}
}

// reference is docs/cli.md, printed from the commands.
func reference() string {
	var b strings.Builder
	b.WriteString("# The command line\n\n" +
		"Printed from the commands themselves (`go test ./cmd/keyturn -run Reference -update`); each says the same with `--help`.\n\n")
	eachCommand(func(c *cobra.Command) {
		level := strings.Count(c.CommandPath(), " ") + 2
		fmt.Fprintf(&b, "%s %s\n\n%s\n\n", strings.Repeat("#", min(level, 4)), c.CommandPath(), c.Long)
		if c.Runnable() && !c.HasSubCommands() {
			fmt.Fprintf(&b, "```\n%s\n```\n\n", c.UseLine())
		}
		flags := c.LocalFlags()
		flags.SortFlags = true
		if help := flags.Lookup("help"); help != nil {
			help.Hidden = true
		}
		if usages := strings.TrimRight(flags.FlagUsages(), "\n"); usages != "" {
			fmt.Fprintf(&b, "```\n%s\n```\n\n", usages)
		}
		fmt.Fprintf(&b, "```sh\n%s\n```\n\n", unindent(c.Example))
	})
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}
