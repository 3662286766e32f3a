package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
)

// TestAdvisory_CVE_2024_0831: what callers bring, in every place that reaches the gate except
// those that are meant to be recorded, never shows up in the log.
func TestAdvisory_CVE_2024_0831(t *testing.T) {
	st := sqliteStore(t)()
	g := start(t, st, Config{})
	const canary = "canary-5f1c9e"
	caller := owner("r1")
	caller.Principal.ID, caller.Principal.Scope = canary, []string{"*", "key/" + canary}
	ctx := context.WithValue(t.Context(), canaryKey{}, canary)
	leak := func() error {
		return fault.Wrap(api.CodeInvalid, errors.New(canary), "decoding the request").WithField("plaintext").WithNext("send base64")
	}
	_ = g.Use(ctx, caller, encrypt, func(context.Context, *audit.Event) error { return leak() })
	_ = g.Use(ctx, caller, encrypt, func(context.Context, *audit.Event) error { return errors.New(canary) })
	_ = g.Use(ctx, caller, encrypt, func(context.Context, *audit.Event) error { panic(canary) })
	_ = g.Change(ctx, caller, encrypt, func(context.Context, store.Tx, *audit.Event) error { return leak() })
	_ = g.Change(ctx, caller, encrypt, func(context.Context, store.Tx, *audit.Event) error { panic(fmt.Errorf("%s", canary)) })
	caller.Principal.Role = "nobody-" + canary[:0]
	_ = g.Use(ctx, caller, encrypt, nothing)
	lines := query(t, g, Filter{})
	if len(lines) != 6 {
		t.Fatalf("%d events", len(lines))
	}
	for _, l := range lines {
		if contains(l.raw, canary) {
			t.Errorf("the log shows %s", l.raw)
		}
	}
}

type canaryKey struct{}

// TestAdvisory_CVE_2025_4166: errors that pass the gate name the field and never the value, whatever the
// failing part had put into its own error.
func TestAdvisory_CVE_2025_4166(t *testing.T) {
	var logged bytes.Buffer
	st := &tampered{Store: sqliteStore(t)()}
	g := start(t, st, Config{Log: textLogger(&logged)})
	const canary = "canary-77aa01"
	st.hooks(func(*audit.Segment) error { return errors.New("driver: bad value " + canary) }, nil)
	var shown []string
	for _, err := range []error{
		g.Use(t.Context(), owner("1"), encrypt, nothing),
		setMeta(g, "2"),
		g.Record(t.Context(), &audit.Event{Type: audit.System}),
	} {
		if err == nil {
			t.Error("a failing store is not noticed")
			continue
		}
		shown = append(shown, fault.MessageOf(err), err.Error(), fault.FieldOf(err), fault.NextOf(err))
	}
	st.hooks(nil, nil)
	err := g.Use(t.Context(), owner("3"), encrypt, func(context.Context, *audit.Event) error { panic(canary) })
	shown = append(shown, err.Error(), logged.String())
	denied := owner("4")
	denied.Principal.Role = access.RoleAuditor
	in := encrypt
	in.Resource.Name = canary // somebody else's key: its name is not repeated to one who may not see it
	shown = append(shown, g.Use(t.Context(), denied, in, nothing).Error())
	for _, text := range shown {
		if contains(text, canary) {
			t.Errorf("shown: %s", text)
		}
	}
	if !contains(logged.String(), "a panic was caught") || !contains(logged.String(), "gate") {
		t.Errorf("the panic is not in the log: %s", logged.String())
	}
}
