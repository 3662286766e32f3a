package oversight

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/store"
)

// Source is the audit log itself: package gate.
type Source interface {
	Doorway
	Query(ctx context.Context, f gate.Filter, fn func(line []byte) error) error
	Follow(ctx context.Context, f gate.Filter, fn func(line []byte) error) error
	Sizes(ctx context.Context) (map[int]uint64, error)
	Export(ctx context.Context, w io.Writer) error
	Verify(ctx context.Context) (audit.Report, error)
	Checkpoint(ctx context.Context) (audit.Checkpoint, error)
}

// LogConfig is what Log is made of; everything is required.
type LogConfig struct {
	Gate      Source
	Store     store.Store
	Clock     func() time.Time
	PublicKey string // of the log, as audit.pub has it
}

// Log is the service behind `keyturn audit`. It is safe for concurrent use.
type Log struct{ cfg LogConfig }

// NewLog makes it.
func NewLog(cfg LogConfig) *Log { return &Log{cfg} }

// auditLog is what the rights on the log are rights to.
var auditLog = access.Resource{Kind: access.KindAudit}

// DefaultTail is how many events Tail begins with when the filter doesn't say.
const DefaultTail = 20

// may decides and records that somebody reads the log; the reading itself comes after it, since it may go on for hours.
func (l *Log) may(ctx context.Context, c *access.Caller, verb string, f gate.Filter) error {
	if f.Type != "" && !slices.Contains(audit.EventTypes(), f.Type) {
		return fault.New(api.CodeInvalid, "the event type is unknown").WithField("type").WithNext("docs/audit-format.md lists them")
	}
	in := gate.Intent{Action: access.AuditRead, Type: audit.ConfigRead, Verb: verb, Resource: auditLog}
	return l.cfg.Gate.Use(ctx, c, in, func(context.Context, *audit.Event) error { return nil })
}

// Query writes the selected events, oldest first unless the filter says otherwise, one line each in the form of an export.
func (l *Log) Query(ctx context.Context, c *access.Caller, f gate.Filter, w io.Writer) error {
	if err := l.may(ctx, c, "audit log queried", f); err != nil {
		return err
	}
	allowed := newStill(l.cfg.Store, l.cfg.Clock, c, access.AuditRead, auditLog)
	return l.cfg.Gate.Query(ctx, f, lineTo(ctx, w, allowed))
}

// lineTo writes one event a line, as long as the caller is still allowed to read it.
func lineTo(ctx context.Context, w io.Writer, allowed *still) func([]byte) error {
	var buf []byte
	return func(line []byte) error {
		if err := allowed.allowed(ctx); err != nil {
			return err
		}
		buf = append(append(buf[:0], line...), '\n')
		_, err := w.Write(buf)
		return err
	}
}

// Export writes the whole log so that it verifies offline (audit.Verify). The file is complete only when nil comes back.
func (l *Log) Export(ctx context.Context, c *access.Caller, w io.Writer) error {
	if err := l.may(ctx, c, "audit log exported", gate.Filter{}); err != nil {
		return err
	}
	return l.cfg.Gate.Export(ctx, w)
}

// Tail writes the newest events, oldest of them first (f.Limit, DefaultTail if 0), and with follow every new one until ctx
// ends: each event once, none left out between. flush is called whenever what was written should be seen.
func (l *Log) Tail(ctx context.Context, c *access.Caller, f gate.Filter, follow bool, w io.Writer, flush func() error) error {
	if err := l.may(ctx, c, "audit log tailed", f); err != nil {
		return err
	}
	if f.Limit == 0 {
		f.Limit = DefaultTail
	}
	from, err := l.cfg.Gate.Sizes(ctx) // before looking, so that nothing falls between
	if err != nil {
		return err
	}
	newest, err := l.newest(ctx, f)
	if err != nil {
		return err
	}
	write := lineTo(ctx, w, newStill(l.cfg.Store, l.cfg.Clock, c, access.AuditRead, auditLog))
	shown := map[string]bool{}
	for _, line := range newest {
		if err := write(line); err != nil {
			return err
		}
		shown[string(line)] = follow
	}
	if err := flush(); err != nil || !follow {
		return err
	}
	f.From = from
	return l.cfg.Gate.Follow(ctx, f, func(line []byte) error {
		if shown[string(line)] {
			return nil
		}
		if err := write(line); err != nil {
			return err
		}
		return flush()
	})
}

// newest are the last events that f selects, in the order in which they were written.
func (l *Log) newest(ctx context.Context, f gate.Filter) (lines [][]byte, err error) {
	f.Newest = true
	err = l.cfg.Gate.Query(ctx, f, func(line []byte) error {
		lines = append(lines, bytes.Clone(line))
		return nil
	})
	slices.Reverse(lines)
	return lines, err
}

// Verify checks the whole log against its checkpoints, those in the store and those beside it. A log that is wrong is an
// answer, not an error: it says where.
func (l *Log) Verify(ctx context.Context, c *access.Caller) (api.AuditVerification, error) {
	if err := l.may(ctx, c, "audit log verified", gate.Filter{}); err != nil {
		return api.AuditVerification{}, err
	}
	r, err := l.cfg.Gate.Verify(ctx)
	if err != nil && r.Bad == nil {
		return api.AuditVerification{}, err
	}
	out := api.AuditVerification{OK: r.OK(), Events: r.Events, Shards: shards(r.Shards), Checkpoint: r.Checkpoint.Note}
	if r.Bad != nil {
		out.Bad = r.Bad.String()
	}
	return out, nil
}

// Checkpoint has the present end of the log signed. The signature covers the event of its own making.
func (l *Log) Checkpoint(ctx context.Context, c *access.Caller) (api.AuditCheckpoint, error) {
	in := gate.Intent{Action: access.AuditCheckpoint, Type: audit.System, Verb: "checkpoint signed", Resource: auditLog}
	if err := l.cfg.Gate.Use(ctx, c, in, func(context.Context, *audit.Event) error { return nil }); err != nil {
		return api.AuditCheckpoint{}, err
	}
	p, err := l.cfg.Gate.Checkpoint(ctx)
	if err != nil {
		return api.AuditCheckpoint{}, err
	}
	return api.AuditCheckpoint{Note: p.Note, Shards: shards(p.Shards), Time: p.Time, PublicKey: l.cfg.PublicKey}, nil
}

func shards(heads []audit.ShardHead) []api.AuditShard {
	out := make([]api.AuditShard, 0, len(heads))
	for _, h := range heads {
		out = append(out, api.AuditShard{Shard: h.Shard, Size: h.Size, Root: base64.StdEncoding.EncodeToString(h.Root[:])})
	}
	return out
}
