package runner

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// recorder keeps everything that was logged, at any level.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *recorder) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.Level(-100)}))
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *recorder) mustNotHold(t *testing.T, canary string) {
	t.Helper()
	if s := r.String(); strings.Contains(s, canary) {
		t.Errorf("the log holds the canary:\n%s", s)
	}
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// P3: what River logs passes with its level, its text and its numbers only.
func TestRiverLogsNoValues(t *testing.T) {
	rec := &recorder{}
	log := slog.New(quiet{rec.logger().Handler()})
	log.Info("starting", "queue", "q")
	log.With("secret", "canary").WithGroup("g").Error("Error fetching jobs", "err", "canary", "queue", "q", "job_id", 7, "args", "canary",
		slog.Group("queue2", "x", "canary"))
	rec.mustNotHold(t, "canary")
	var line map[string]any
	if err := json.Unmarshal([]byte(rec.String()), &line); err != nil {
		t.Fatalf("not one line: %v\n%s", err, rec)
	}
	if line["level"] != "ERROR" || line["msg"] != "job queue: Error fetching jobs" || line["queue"] != "q" || line["job_id"] != 7.0 {
		t.Errorf("%v", line)
	}
}
