package server

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// A destruction that fell due while nobody ran waits until keyturn has run for as long as it was to wait, or until somebody
// answers for the date.
func TestDueDestructionWithoutAServer(t *testing.T) {
	dir := made(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := opened(t, dir, Options{})
	c := keyturn.NewClient(first.InProcess())
	for _, key := range []string{"phi", "kept"} {
		_, err := c.CreateKey(ctx, api.CreateKeyRequest{Name: key})
		must(err)
		_, err = c.DisableKey(ctx, key, api.VersionStateRequest{})
		must(err)
	}
	_, err := c.DestroyKey(ctx, "phi", api.VersionStateRequest{Version: 1})
	must(err)
	if out, err := c.DestroyDue(ctx, api.DestroyDueRequest{}); err != nil || out.Job != "" || len(out.Due) != 0 || out.State != "done" {
		t.Errorf("before it is due: %+v, %v", out, err)
	}
	must(first.Close(ctx))

	later := opened(t, dir, Options{Clock: func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }})
	c = keyturn.NewClient(later.InProcess())
	// The clock alone, which may have been set forward, doesn't destroy anything; who answers for the date does.
	run := func(in api.DestroyDueRequest, want string) {
		t.Helper()
		out, err := c.DestroyDue(ctx, in)
		must(err)
		if len(out.Due) != 1 || out.Due[0].Key != "phi" || (out.Due[0].WaitSeconds == 0) {
			t.Errorf("due are %+v", out.Due)
		}
		for _, err := range c.WatchJob(ctx, out.Job) {
			must(err)
		}
		if k, err := c.Key(ctx, "phi"); err != nil || k.Versions[0].State != want {
			t.Errorf("%+v, %v; want %s", k.Versions, err, want)
		}
	}
	run(api.DestroyDueRequest{}, "destroy-scheduled")
	if _, err := c.DestroyDue(ctx, api.DestroyDueRequest{Unwatched: true}); keyturn.CodeOf(err) != api.CodeInvalid {
		t.Errorf("without a reason: %v", err)
	}
	run(api.DestroyDueRequest{Unwatched: true, Reason: "it is the 29th of December"}, "destroyed")
	if out, err := c.DestroyDue(ctx, api.DestroyDueRequest{}); err != nil || out.Job != "" || len(out.Due) != 0 {
		t.Errorf("afterwards: %+v, %v", out, err)
	}
}
