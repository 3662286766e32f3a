package kms

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/store"
)

func TestStatus(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "old", Period: "10d"})
	h.clock.Add(11 * 24 * time.Hour)
	h.create(api.CreateKeyRequest{Name: "new"})
	_, err := h.svc.Rotate(t.Context(), owner(), "new", api.RotateKeyRequest{})
	h.must(err)
	_, err = h.gate.Checkpoint(t.Context())
	h.must(err)
	out, err := h.svc.Status(t.Context(), as(access.RoleAuditor))
	h.must(err)
	if out.Keys != 2 || out.Versions["active"] != 2 || out.Versions["deactivated"] != 1 || strings.Join(out.Overdue, " ") != "old" || out.Environment != "test" {
		t.Errorf("%+v", out)
	}
	if out.Audit.Events != 3 || out.Audit.CheckpointSize != 3 || out.Audit.CheckpointAt == nil || out.StoreID != h.st.ID() || out.FIPS.Version == "" || out.Version == "" {
		t.Errorf("%+v", out)
	}
	_, err = h.svc.Status(t.Context(), as(access.RoleApplication))
	wants(t, err, api.CodeDenied)
}

func TestCompliance(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "a", Period: "60d"})
	h.create(api.CreateKeyRequest{Name: "b", Period: "600d"})
	for _, c := range []struct {
		wait time.Duration
		want Compliance
	}{
		{0, Compliance{"compliant", 2, 0, 0}}, {54 * 24 * time.Hour, Compliance{"due_soon", 2, 1, 0}}, {6 * 24 * time.Hour, Compliance{"overdue", 2, 0, 1}},
	} {
		h.clock.Add(c.wait)
		if got, err := h.svc.Compliance(t.Context()); err != nil || got != c.want {
			t.Errorf("%+v, %v; want %+v", got, err, c.want)
		}
	}
	h.create(api.CreateKeyRequest{Name: "c"})
	if got, err := h.svc.Compliance(t.Context()); err != nil || got.Keys != 2 {
		t.Errorf("a public count walked all keys again: %+v, %v", got, err)
	}
}

func TestDoctorIsContent(t *testing.T) {
	h := newHouse(t, options{checks: []Check{{"files", SeverityWarning, func(context.Context) (bool, string, string) { return true, "0600", "not shown" }}}})
	h.create(api.CreateKeyRequest{Name: "phi"})
	_, err := h.gate.Checkpoint(t.Context())
	h.must(err)
	h.create(api.CreateKeyRequest{Name: "pii"})
	d, err := h.svc.Doctor(t.Context(), as(access.RoleAuditor))
	h.must(err)
	if !d.OK || len(d.Checks) != 16 {
		t.Errorf("%+v", d)
	}
	for _, c := range d.Checks {
		if !c.OK || c.Detail == "" || c.Fix != "" {
			t.Errorf("%+v", c)
		}
	}
	_, err = h.svc.Doctor(t.Context(), as(access.RoleApplication))
	wants(t, err, api.CodeDenied)
}

func (h *house) complaint(name string, ok bool) string {
	h.t.Helper()
	d, err := h.svc.Doctor(h.t.Context(), owner())
	h.must(err)
	c := check(d, name)
	if c.OK || c.Fix == "" || c.Detail == "" || d.OK != ok {
		h.t.Errorf("the doctor (%v) says of %s: %+v", d.OK, name, c)
	}
	return c.Detail
}

func TestDoctorSeesOverdueKeys(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi", Period: "1d"})
	h.clock.Add(24 * time.Hour)
	if got := h.complaint("rotation", true); !strings.Contains(got, "phi") {
		t.Error(got)
	}
}

func TestDoctorSeesALateDestruction(t *testing.T) {
	h := newHouse(t, options{})
	destroyable(h)
	_, err := h.svc.Destroy(t.Context(), owner(), "phi", api.VersionStateRequest{Version: 1, WaitDays: 7})
	h.must(err)
	h.clock.Add(8*24*time.Hour + time.Second)
	if got := h.complaint("destruction", true); !strings.Contains(got, "phi") {
		t.Error(got)
	}
}

func TestDoctorSeesAClockSetBack(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	h.clock.Add(-time.Hour)
	if got := h.complaint("clock", false); !strings.Contains(got, "1h0m0s") {
		t.Error(got)
	}
}

func TestDoctorSeesABrokenMasterKey(t *testing.T) {
	h := newHouse(t, options{})
	h.must(h.ring.Masters()[0].Close())
	if got := h.complaint("master-keys", false); !strings.Contains(got, "file:///first") {
		t.Error(got)
	}
}

// The doctor's quick look finds an edit and a cut at the end of the log.
func TestDoctorSeesATamperedLog(t *testing.T) {
	for name, tamper := range map[string]string{
		"edited": `UPDATE audit_segments SET lines = CAST(replace(CAST(lines AS TEXT), 'phi', 'pii') AS BLOB) WHERE seq = (SELECT max(seq) FROM audit_segments)`,
		"cut":    `DELETE FROM audit_segments WHERE seq = (SELECT max(seq) FROM audit_segments)`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			for _, key := range []string{"phi", "phi2", "phi3"} {
				h.create(api.CreateKeyRequest{Name: key})
			}
			_, err := h.gate.Checkpoint(t.Context())
			h.must(err)
			if _, err := h.st.DB().ExecContext(t.Context(), tamper); err != nil {
				t.Fatal(err)
			}
			ok, detail, fix := h.svc.checkAudit(t.Context())
			if ok || detail == "" || fix == "" {
				t.Errorf("%v, %q, %q", ok, detail, fix)
			}
		})
	}
}

func TestDoctorSeesAReplacedCheckpoint(t *testing.T) {
	h := newHouse(t, options{})
	h.create(api.CreateKeyRequest{Name: "phi"})
	c, err := h.gate.Checkpoint(t.Context())
	h.must(err)
	h.must(h.st.Change(t.Context(), func(tx store.Tx) error {
		return tx.PutCheckpoint(t.Context(), audit.StoredCheckpoint{Sequence: c.Sequence + 1, Time: h.clock.Now(), Events: 1, Note: strings.Replace(c.Note, "shard 0 1", "shard 0 0", 1)})
	}))
	if ok, detail, _ := h.svc.checkAudit(t.Context()); ok {
		t.Error(detail)
	}
}
