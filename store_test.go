package keyturn_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyturntest"
)

var patient17 = map[string]string{"patient": "17"}

// TestEnvelopeOnAStore: promise P4; what was sealed before a rotation opens after it, and can be moved to the new version
// without being opened.
func TestEnvelopeOnAStore(t *testing.T) {
	ctx := t.Context()
	c := keyturntest.New(t, keyturntest.WithKey("phi"))
	fresh := func() *keyturn.Envelope {
		e, err := keyturn.NewEnvelope(c, keyturn.EnvelopeConfig{Key: "phi", Context: map[string]string{"tenant": "clinic"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	old, err := fresh().Seal(ctx, []byte("900-05-1120"), patient17)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RotateKey(ctx, "phi", api.RotateKeyRequest{}); err != nil {
		t.Fatal(err)
	}
	reader := fresh()
	if got, err := reader.Open(ctx, old, patient17); err != nil || string(got) != "900-05-1120" {
		t.Fatalf("opening after the rotation: %q, %v", got, err)
	}
	moved, err := reader.Rewrap(ctx, old)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]uint32{old: 1, moved: 2} {
		wrapped, _, _ := strings.Cut(strings.TrimPrefix(text, "kte1."), ".")
		if got, err := c.Inspect(ctx, "kt1."+wrapped); err != nil || got.Version != want || got.Key != "phi" {
			t.Errorf("stands under %+v, %v; want version %d", got, err, want)
		}
	}
	if got, err := fresh().Open(ctx, moved, patient17); err != nil || string(got) != "900-05-1120" {
		t.Errorf("opening what was moved: %q, %v", got, err)
	}
	if _, err := fresh().Open(ctx, moved, map[string]string{"patient": "18"}); keyturn.CodeOf(err) != api.CodeIntegrity {
		t.Errorf("opening with another context: %v", err)
	}
}

// TestOneEventForAThousandMessages: the log shows the data key, bound as configured, and no plaintext.
func TestOneEventForAThousandMessages(t *testing.T) {
	ctx := t.Context()
	c := keyturntest.New(t, keyturntest.WithKey("phi"))
	e, err := keyturn.NewEnvelope(c, keyturn.EnvelopeConfig{Key: "phi"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 1000 {
		if _, err := e.Seal(ctx, []byte("CANARY"), patient17); err != nil {
			t.Fatal(err)
		}
	}
	uses := 0
	for line, err := range c.AuditEvents(ctx, keyturn.AuditQuery{Resource: "key/phi", Type: "key_use"}) {
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(line, []byte("CANARY")) {
			t.Errorf("the log holds the plaintext: %s", line)
		}
		uses++
	}
	if uses != 1 {
		t.Errorf("%d events for 1000 messages under one data key", uses)
	}
}

// TestColumnAtTheServer: the client's own Sealer writes the form that datasets hold.
func TestColumnAtTheServer(t *testing.T) {
	ctx := t.Context()
	c := keyturntest.New(t, keyturntest.WithKey("phi"))
	ssn := keyturn.NewColumn[string](c.Sealer("phi"), map[string]string{"table": "patients", "column": "ssn"})
	v, err := ssn.Row(ctx, "pk.id", "17").Of("900-05-1120").Value()
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: v.(string), Context: map[string]string{"table": "patients", "column": "ssn", "pk.id": "17"}})
	if err != nil || string(res.Plaintext) != "900-05-1120" {
		t.Errorf("opening as a dataset does: %q, %v", res.Plaintext, err)
	}
	other := ssn.Row(ctx, "pk.id", "18").Empty()
	if err := other.Scan(v); keyturn.CodeOf(err) != api.CodeIntegrity || other.Valid {
		t.Errorf("reading it in another row: %v", err)
	}
}

// TestStreamsOnAStore: every page of keys, every event of the log, and an export whose events are the same lines.
func TestStreamsOnAStore(t *testing.T) {
	ctx := t.Context()
	c := keyturntest.New(t)
	const n = 250 // more than a page
	for i := range n {
		if _, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: fmt.Sprintf("key-%03d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	for k, err := range c.AllKeys(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("key-%03d", i); k.Name != want {
			t.Fatalf("key %d is %s, want %s", i, k.Name, want)
		}
		i++
	}
	if i != n {
		t.Errorf("saw %d of %d keys", i, n)
	}
	var events []json.RawMessage
	for line, err := range c.AuditEvents(ctx, keyturn.AuditQuery{Type: "key_create"}) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, bytes.Clone(line))
	}
	if len(events) != n {
		t.Errorf("saw %d of %d events", len(events), n)
	}
	var export bytes.Buffer
	if size, err := c.ExportAudit(ctx, &export, keyturn.AuditQuery{}); err != nil || size != int64(export.Len()) {
		t.Fatalf("exporting %d bytes: %v", size, err)
	}
	for _, e := range events {
		if !bytes.Contains(export.Bytes(), append(e, '\n')) {
			t.Fatalf("the export lacks %s", e)
		}
	}
	if v, err := c.VerifyAudit(ctx); err != nil || !v.OK || v.Events < n {
		t.Errorf("verifying: %+v, %v", v, err)
	}
}

// TestEmbeddedTellsAsAServerDoes: errors arrive with code, field and next step in process too.
func TestEmbeddedTellsAsAServerDoes(t *testing.T) {
	ctx := t.Context()
	c := keyturntest.New(t, keyturntest.WithKey("phi"))
	_, err := c.Key(ctx, "absent")
	if keyturn.CodeOf(err) != api.CodeNotFound {
		t.Errorf("an absent key: %v", err)
	}
	_, err = c.CreateKey(ctx, api.CreateKeyRequest{Name: "Upper"})
	if message, field, next := keyturn.Explain(err); keyturn.CodeOf(err) != api.CodeInvalid || message == "" || field == "" || next == "" {
		t.Errorf("a bad name: %q, field %q, next %q", message, field, next)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(context.WithoutCancel(ctx)); keyturn.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a closed store: %v", err)
	}
}
