// Package soak holds the fault campaigns that drive the real keyturn binary as its users do: it is killed at random
// moments, its disk fills, its ciphertexts are mutated, its output is searched for canaries. Each campaign is a test whose
// name contains "Campaign"; in `make test` it runs at tier C (some minutes for all), in `make soak` for the time that
// KEYTURN_SOAK gives. Each prints one line: campaign, seed, what it tried, what it found.
//
// A campaign keeps its own journal of what keyturn acknowledged; afterwards the invariants I1-I8 of docs/reliability.md
// are checked against that journal, never against keyturn's own opinion alone.
package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The programs under test, each built once a process into a directory that Main's end removes.
var (
	programs = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "keyturn-soak-bin-")
		if err == nil {
			err = os.Chmod(dir, 0o755) // other users run them too: the memory test
		}
		return dir, err
	})
	plain   = built("keyturn")
	failing = built("keyturn-failing", "-tags", "failpoint")
)

// built gives the path of cmd/keyturn, built with these flags.
func built(name string, flags ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := programs()
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		out, err := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, "github.com/keyturn/keyturn/cmd/keyturn")...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("building %s: %w: %s", name, err, out)
		}
		return path, nil
	})
}

// removePrograms removes what was built.
func removePrograms() error {
	dir, err := programs()
	return errors.Join(err, os.RemoveAll(dir))
}

// Binary gives the path of cmd/keyturn.
func Binary(tb testing.TB) string {
	tb.Helper()
	return must(tb, plain)
}

// Failing gives the path of cmd/keyturn with failpoints, for Env "KEYTURN_FAIL=…".
func Failing(tb testing.TB) string {
	tb.Helper()
	return must(tb, failing)
}

func must(tb testing.TB, build func() (string, error)) string {
	tb.Helper()
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// beside lets a test that waits most of its time run beside others like it, once those that want the machine are through. At tier N
// each campaign has the machine.
func beside(t *testing.T) {
	if os.Getenv("KEYTURN_SOAK") == "" {
		t.Parallel()
	}
}

// Budget is how long a campaign goes on: until n attempts at tier C, or for KEYTURN_SOAK (a duration) at tier N.
type Budget struct {
	n     int
	until time.Time
}

// NewBudget gives n attempts, or the duration in KEYTURN_SOAK.
func NewBudget(tb testing.TB, n int) Budget {
	tb.Helper()
	if text := os.Getenv("KEYTURN_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			tb.Fatalf("KEYTURN_SOAK: %v", err)
		}
		return Budget{until: time.Now().Add(d)}
	}
	return Budget{n: n}
}

// More says whether attempt i (from 0) should be made.
func (b Budget) More(i int) bool {
	if b.until.IsZero() {
		return i < b.n
	}
	return time.Now().Before(b.until)
}

// Seed is KEYTURN_SEED, or a new one; every campaign prints it.
func Seed(tb testing.TB) (*rand.Rand, uint64) {
	tb.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KEYTURN_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			tb.Fatalf("KEYTURN_SEED: %v", err)
		}
		seed = n
	}
	return rand.New(rand.NewPCG(seed, 0x6b657974)), seed
}

// Report prints the campaign's one line, on stdout so that it is seen without -v.
func Report(name string, seed uint64, format string, args ...any) {
	fmt.Printf("campaign %s seed=%d %s\n", name, seed, fmt.Sprintf(format, args...))
}

// Keyturn is the binary on one data directory.
type Keyturn struct {
	tb   testing.TB
	path string
	Dir  string
	Env  []string // further environment of every command
}

// New gives keyturn on a fresh, initialised data directory with key "phi".
func New(tb testing.TB, initArgs ...string) *Keyturn {
	tb.Helper()
	k := &Keyturn{tb: tb, path: Binary(tb), Dir: filepath.Join(tb.TempDir(), "kt")}
	k.OK(nil, append([]string{"init"}, initArgs...)...)
	k.OK(nil, "key", "create", "phi", "--purpose", "phi")
	return k
}

// Command prepares one command; its environment holds nothing of ours but the data directory.
func (k *Keyturn) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.path, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "KEYTURN_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, "KEYTURN_DIR="+k.Dir), k.Env...)
	return cmd
}

// OK runs a command that must end with status 0 and gives its stdout.
func (k *Keyturn) OK(stdin []byte, args ...string) []byte {
	k.tb.Helper()
	out, stderr, code := k.Run(stdin, args...)
	if code != 0 {
		k.tb.Fatalf("keyturn %s: exit %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return out
}

// Run runs a command to its end.
func (k *Keyturn) Run(stdin []byte, args ...string) (stdout []byte, stderr string, exit int) {
	k.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := k.Command(ctx, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		k.tb.Fatalf("starting keyturn: %v", err)
	}
	return out, errs.String(), cmd.ProcessState.ExitCode()
}

// JSON runs a command that must succeed with --json and decodes its one document.
func (k *Keyturn) JSON(into any, args ...string) {
	k.tb.Helper()
	out := k.OK(nil, append(args, "--json")...)
	if err := json.Unmarshal(out, into); err != nil {
		k.tb.Fatalf("keyturn %s --json: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// KillAfter starts a command and kills it (SIGKILL) after d unless it ended by itself; it says which, and gives its stdout.
func (k *Keyturn) KillAfter(d time.Duration, stdin []byte, args ...string) (stdout []byte, killed bool, exit int) {
	k.tb.Helper()
	cmd := k.Command(context.Background(), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &errs, bytes.NewReader(stdin)
	if err := cmd.Start(); err != nil {
		k.tb.Fatalf("starting keyturn: %v", err)
	}
	timer := time.AfterFunc(d, func() { cmd.Process.Signal(syscall.SIGKILL) })
	cmd.Wait()
	timer.Stop()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	if !killed && cmd.ProcessState.ExitCode() != 0 {
		k.tb.Fatalf("keyturn %s: exit %d after earlier kills\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), errs.String())
	}
	return out.Bytes(), killed, cmd.ProcessState.ExitCode()
}
