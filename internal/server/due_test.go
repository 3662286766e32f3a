package server

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
)

// A destruction that fell due while nobody ran is executed by whoever runs next: a program with an embedded store by opening
// it, anybody by asking for it.
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
	out, err := c.DestroyDue(ctx, api.DestroyDueRequest{}) // the job of whoever was first
	must(err)
	if out.Job != "" {
		for _, err := range c.WatchJob(ctx, out.Job) {
			must(err)
		}
	} // else it was done already
	k, err := c.Key(ctx, "phi")
	must(err)
	if k.Versions[0].State != "destroyed" {
		t.Errorf("%+v", k.Versions)
	}
	if out, err := c.DestroyDue(ctx, api.DestroyDueRequest{}); err != nil || out.Job != "" || len(out.Due) != 0 {
		t.Errorf("afterwards: %+v, %v", out, err)
	}
}
