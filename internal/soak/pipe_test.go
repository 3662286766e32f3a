package soak

import (
	"context"
	"os/exec"
	"testing"
)

// TestPipes: two embedded commands on one directory, joined by a pipe, don't keep one another from the store.
func TestPipes(t *testing.T) {
	k := New(t)
	for script, want := range map[string]string{
		`printf 900-05-1120 | "$0" encrypt phi --context patient=17 | "$0" decrypt phi --context patient=17`: "900-05-1120",
		`printf 'a\n\nc' | "$0" encrypt phi --lines | "$0" rewrap phi --lines | "$0" decrypt phi --lines`:    "a\n\nc\n",
	} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script, k.path)
		cmd.Env = k.Command(context.Background()).Env
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s: %v: %q, want %q", script, err, out, want)
		}
	}
}
