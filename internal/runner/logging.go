package runner

import (
	"context"
	"log/slog"
	"slices"

	"github.com/keyturn/keyturn/internal/fault"
)

// quiet stands between River and our log: warnings and errors only, and of their attributes only those named below. What
// River calls "err" is the text of a database driver, which may quote a value (P3).
type quiet struct{ next slog.Handler }

// spoken are the attributes of River's log lines that hold numbers and fixed names.
var spoken = []string{"attempt", "job_id", "kind", "job_kind", "queue", "timeout", "sleep_duration", "max_attempts"}

// Enabled lets warnings and errors through.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.next.Enabled(ctx, level)
}

// Handle passes the record on with the attributes that are allowed.
func (q quiet) Handle(ctx context.Context, rec slog.Record) error {
	safe := slog.NewRecord(rec.Time, rec.Level, "job queue: "+rec.Message, rec.PC)
	rec.Attrs(func(a slog.Attr) bool {
		if slices.Contains(spoken, a.Key) {
			safe.AddAttrs(a)
		}
		return true
	})
	return q.next.Handle(ctx, safe)
}

// WithAttrs drops attributes set beforehand: River sets none that are needed.
func (q quiet) WithAttrs([]slog.Attr) slog.Handler { return q }

// WithGroup flattens: the allowed names are unique.
func (q quiet) WithGroup(string) slog.Handler { return q }

// warn logs a failure of the machinery: a fault's text is safe by construction.
func (r *Runner) warn(doing, job string, err error) {
	r.cfg.Logger.Warn("jobs: "+doing, slog.String("job", job), slog.String("code", string(fault.CodeOf(err))), slog.String("error", fault.MessageOf(err)))
}
