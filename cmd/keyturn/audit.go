package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn"
)

func auditCommand(a *app) *cobra.Command {
	return noun("audit", "Read the audit log, export it, and verify it without trusting anyone",
		`Every use of a key, every change and every denial is an event of the audit log, recorded before it is answered. The log is a
tamper-evident tree with signed checkpoints: an export verifies offline, with the public key alone.`,
		`  keyturn audit tail --follow
  keyturn audit query --resource key/phi --since 24h
  keyturn audit export --out audit.jsonl
  keyturn audit verify audit.jsonl --key audit.pub`,
		auditTail(a), auditQuery(a), auditVerify(a), auditExport(a), auditCheckpoint(a),
	)
}

// eventFilter holds the flags that narrow events.
type eventFilter struct {
	limit        string // the name of the flag that bounds how many
	since, until string
	q            keyturn.AuditQuery
}

func (f *eventFilter) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.since, "since", "", "from this `time` on: 24h, 7d (ago) or 2026-01-15T10:30:00Z")
	fs.StringVar(&f.until, "until", "", "before this `time`")
	fs.StringVar(&f.q.Type, "type", "", "only events of this `type`, such as key_use or permission_denied")
	fs.StringVar(&f.q.Resource, "resource", "", "only events about this `resource`, such as key/phi")
	fs.BoolVar(&f.q.Failed, "failed", false, "only what was denied, refused or failed")
	fs.StringVar(&f.q.User, "user", "", "only events of this `principal`")
}

// query is what the flags say.
func (f *eventFilter) query() (keyturn.AuditQuery, error) {
	err := notNegative(f.limit, f.q.Limit)
	if err != nil {
		return f.q, err
	}
	if f.q.Since, err = parseWhen("since", f.since); err != nil {
		return f.q, err
	}
	f.q.Until, err = parseWhen("until", f.until)
	return f.q, err
}

// parseWhen reads a time, or how long ago it was.
func parseWhen(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return t.UTC(), nil
	}
	days := 0
	if n, err := fmt.Sscanf(text, "%dd", &days); n == 1 && err == nil && text == fmt.Sprintf("%dd", days) {
		return time.Now().AddDate(0, 0, -days).UTC(), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d).UTC(), nil
	}
	return time.Time{}, usage(flag, "reading --%s: it is neither a time nor a duration", flag).WithNext("write 24h, 7d, 2026-01-15 or 2026-01-15T10:30:00Z")
}

func auditTail(a *app) *cobra.Command {
	var f eventFilter
	var follow bool
	return withFlags(&cobra.Command{
		Use: "tail", Short: "Show the newest events, and those to come",
		Long: `Shows the newest events, oldest first; with --follow also those to come, until Ctrl-C. With --json it prints {"events":[…]};
together with --follow, one event a line.`,
		Example: "  keyturn audit tail\n  keyturn audit tail --follow --type permission_denied",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				err := a.showEvents(s.TailAudit(cmd.Context(), follow, q), follow)
				if follow && cmd.Context().Err() != nil {
					return nil // Ctrl-C is how one leaves it
				}
				return err
			})
		},
	}, func(cmd *cobra.Command) {
		f.flags(cmd)
		f.limit = "lines"
		cmd.Flags().IntVarP(&f.q.Limit, "lines", "n", 20, "how many of the newest `events`")
		cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the events to come")
	})
}

func auditQuery(a *app) *cobra.Command {
	var f eventFilter
	return withFlags(&cobra.Command{
		Use: "query", Short: "Find events",
		Long:    "Shows the events that match, oldest first. With --json it prints {\"events\":[…]}.",
		Example: "  keyturn audit query --resource key/phi --since 24h\n  keyturn audit query --failed --since 7d\n  keyturn audit query --type permission_denied --json | jq '.events[].user_id'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				return a.showEvents(s.AuditEvents(cmd.Context(), q), false)
			})
		},
	}, func(cmd *cobra.Command) {
		f.flags(cmd)
		f.limit = "limit"
		cmd.Flags().IntVar(&f.q.Limit, "limit", 1000, "at most so many `events`; 0 for all")
		cmd.Flags().StringVar(&f.q.After, "after", "", "after this `place`, SHARD.INDEX")
	})
}

// shownEvent is what people are shown of an event.
type shownEvent struct {
	Timestamp  string `json:"timestamp"`
	Type       string `json:"event_type"`
	Action     string `json:"action"`
	Success    bool   `json:"success"`
	User       string `json:"user_id"`
	Resource   string `json:"resource"`
	KeyVersion uint32 `json:"key_version"`
	Reason     string `json:"reason"`
	Details    struct {
		Code string `json:"code"`
	} `json:"details"`
	Shard int    `json:"shard"`
	Index uint64 `json:"index"`
}

// showEvents prints events as they come: lines for people, one document with --json, or a line each when they have no end.
func (a *app) showEvents(events iter.Seq2[json.RawMessage, error], endless bool) error {
	out := bufio.NewWriterSize(a.out, 64<<10)
	document := a.json && !endless
	n := 0
	if document {
		_, _ = out.WriteString(`{"events":[`)
	}
	for line, err := range events {
		if err != nil {
			_ = out.Flush()
			return err
		}
		switch {
		case document && n > 0:
			_, _ = out.WriteString("," + string(line))
		case document:
			_, _ = out.Write(line)
		case a.json:
			_, _ = out.WriteString(string(line) + "\n")
		default:
			_, _ = out.WriteString(eventLine(line) + "\n")
		}
		if n++; endless {
			if err := out.Flush(); err != nil {
				return writing(err)
			}
		}
	}
	if document {
		_, _ = out.WriteString("]}\n")
	}
	return writing(out.Flush())
}

// eventLine is one event for people.
func eventLine(line json.RawMessage) string {
	var e shownEvent
	if json.Unmarshal(line, &e) != nil {
		return printable(string(line))
	}
	at, result := e.Timestamp, "ok"
	if t, err := time.Parse(time.RFC3339Nano, e.Timestamp); err == nil {
		at = t.Local().Format("2006-01-02 15:04:05.000")
	}
	if !e.Success {
		result = strings.TrimSuffix("FAILED "+e.Details.Code, " ")
	}
	resource := e.Resource
	if e.KeyVersion > 0 {
		resource += fmt.Sprintf(" v%d", e.KeyVersion)
	}
	text := fmt.Sprintf("%s  %-19s %-17s %-14s %-26s %s", at, e.Type, e.Action, cell(e.User), resource, result)
	if e.Reason != "" {
		text += "  (" + e.Reason + ")"
	}
	return printable(text)
}
