package keyturn

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/api"
)

// AuditQuery narrows what AuditEvents and ExportAudit yield. Its zero value is everything.
type AuditQuery struct {
	Since, Until time.Time // from Since, up to and without Until
	Type         string    // an event type of the closed list, "key_use" for one
	Resource     string    // "key/phi"
	User         string    // user_id
	Limit        int       // at most so many events; 0 for no limit
	After        string    // events after this place, as "shard:index"
	Failed       bool      // only what was denied, refused or failed
}

func (q AuditQuery) encode() string { return query(q.values()) }

func (q AuditQuery) values() url.Values {
	v := url.Values{}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	set(v, "type", q.Type)
	set(v, "resource", q.Resource)
	set(v, "user", q.User)
	set(v, "after", q.After)
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Failed {
		v.Set("failed", "true")
	}
	return v
}

// AuditEvents yields the events that match, oldest first, each as the line that an export holds. Needs audit.read.
func (c *Client) AuditEvents(ctx context.Context, q AuditQuery) iter.Seq2[json.RawMessage, error] {
	return stream[json.RawMessage](ctx, c, route("audit", "events")+q.encode())
}

// TailAudit yields the newest events and, with follow, those to come until ctx ends.
func (c *Client) TailAudit(ctx context.Context, follow bool, q AuditQuery) iter.Seq2[json.RawMessage, error] {
	v := q.values()
	if follow {
		v.Set("follow", "true")
	}
	return stream[json.RawMessage](ctx, c, route("audit", "tail")+query(v))
}

// ExportAudit copies the log, byte for byte, to w: what an offline verification is given. It returns the bytes written.
func (c *Client) ExportAudit(ctx context.Context, w io.Writer, q AuditQuery) (int64, error) {
	return c.copyTo(ctx, w, route("audit", "export")+q.encode())
}

// VerifyAudit has the server check its own log against its newest checkpoint. An auditor who believes nobody exports and
// verifies offline instead.
func (c *Client) VerifyAudit(ctx context.Context) (api.AuditVerification, error) {
	return read[api.AuditVerification](ctx, c.patient(), route("audit", "verify"))
}

// Checkpoint signs the heads of all shards now. Keep the note away from the server. Needs audit.checkpoint.
func (c *Client) Checkpoint(ctx context.Context) (api.AuditCheckpoint, error) {
	return post[api.AuditCheckpoint](ctx, c, route("audit", "checkpoint"), nil)
}
