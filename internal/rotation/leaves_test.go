package rotation

import (
	"testing"

	"github.com/keyturn/keyturn/internal/jobs"
)

// A kind that nobody thought of here is alerted of, too: only what is known to have looked and nothing more is left out.
func TestWhatLeavesSomethingBehind(t *testing.T) {
	for _, kind := range []string{"emergency-rotate", "incident-scope", "destroy-due", "dataset-encrypt", "dataset-import", "dataset-decrypt", "dataset-reencrypt",
		"rotation-check", "rotation-run", "rotation-followup", "rotation-health", "dataset-verify", "of a later release"} {
		j := jobs.Job{Kind: kind, Subject: "dataset/x", Args: []byte(`{}`)}
		if got, want := (&Service{}).leavesBehind(j), kind != "dataset-verify"; got != want {
			t.Errorf("%s: %t", kind, got)
		}
		j.Args = []byte(`{"dryRun":true}`)
		if got, want := (&Service{}).leavesBehind(j), len(kind) < 8 || kind[:8] != "dataset-"; got != want {
			t.Errorf("a dry run of %s: %t", kind, got)
		}
	}
}
