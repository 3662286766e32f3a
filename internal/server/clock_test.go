package server

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/store"
)

// setClock is a machine whose clock is set: time really passes as it does, and the clock shows it with a difference.
type setClock struct {
	begin time.Time
	off   atomic.Int64
}

func (c *setClock) wall() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.off.Load())) // no monotonic reading: one that is set has none
}

func (c *setClock) elapsed() time.Duration { return time.Since(c.begin) }

func (c *setClock) options(accept string) Options {
	return Options{Clock: c.wall, Elapsed: c.elapsed, AcceptClock: accept}
}

// rollbacks are the alerts that a clock was set back.
func rollbacks(t testing.TB, c caller) (n int) {
	t.Helper()
	status, answer := c.call(t, "GET", "/v1/audit/events", nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	for line := range strings.Lines(string(answer)) {
		if strings.Contains(line, `"event_type":"alert","action":"clock.rollback"`) {
			n++
		}
	}
	return n
}

func clockCheck(t testing.TB, c caller) api.DoctorCheck {
	t.Helper()
	var d api.Doctor
	c.must(t, "GET", "/v1/doctor", nil, &d)
	for _, check := range d.Checks {
		if check.Name == "clock" {
			return check
		}
	}
	t.Fatal("the doctor says nothing of the clock")
	return api.DoctorCheck{}
}

// A server whose clock is set back by a year, and one whose clock was ahead by ten: what expired stays so over restarts, work
// goes on, an incident's report has all of its events, one alert is recorded, and --accept-clock ends it.
func TestClockIsSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		name      string
		off, then time.Duration
	}{{"back", 0, -year}, {"ahead and back", 10 * year, 0}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, machine := made(t), &setClock{begin: time.Now()}
			s := served(t, dir, machine.options(""))
			admin := inside(s.Server)
			machine.off.Store(int64(c.off))
			admin.key(t, "phi")
			short := inside(s.Server)
			short.token = admin.principal(t, "short", "application")
			asks := func(c caller, what string, want int) {
				t.Helper()
				if status, answer := c.call(t, "POST", "/v1/keys/phi/encrypt", api.EncryptRequest{Plaintext: []byte("x")}); status != want {
					t.Errorf("%s: %d %s", what, status, answer)
				}
			}
			asks(short, "a token that lives", http.StatusOK)
			if err := s.store.Change(t.Context(), func(tx store.Tx) error {
				stored, err := tx.PrincipalByName(t.Context(), "short")
				if err != nil {
					return err
				}
				tokens, err := tx.TokensOf(t.Context(), stored.ID)
				for _, k := range tokens {
					k.Expires = machine.wall().Add(-time.Second).UTC().Truncate(time.Microsecond)
					err = tx.PutToken(t.Context(), k)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			s.signIns.Drop()
			asks(short, "a token that ended", http.StatusUnauthorized)
			var before api.Incident
			admin.must(t, "POST", "/v1/incidents", api.OpenIncidentRequest{Type: "other", Severity: "low", Reason: "before"}, &before)

			machine.off.Store(int64(c.then))
			s.signIns.Drop()
			asks(short, "a token that ended, after the clock was set back", http.StatusUnauthorized)
			asks(admin, "the administrator", http.StatusOK)
			admin.must(t, "POST", "/v1/keys/phi/rotate", api.RotateKeyRequest{}, nil)
			admin.must(t, "POST", "/v1/incidents/"+before.ID+"/notes", api.IncidentNoteRequest{Text: "after"}, nil)
			var report api.IncidentReport
			admin.must(t, "GET", "/v1/incidents/"+before.ID+"/report", nil, &report)
			seen := map[string]bool{}
			for _, a := range report.Actions {
				seen[a.Action] = true
			}
			if !seen["opened"] || !seen["noted"] {
				t.Errorf("the report has only %v", seen)
			}
			for range 3 {
				if err := s.kms.WatchClock(t.Context()); err != nil { // as each minute
					t.Fatal(err)
				}
			}
			if check := clockCheck(t, admin); check.OK || !strings.Contains(check.Fix, "--accept-clock") {
				t.Errorf("%+v", check)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			s = served(t, dir, machine.options(""))
			admin, short.rt = inside(s.Server), s.InProcess()
			asks(short, "a token that ended, after a restart", http.StatusUnauthorized)
			if n := rollbacks(t, admin); n != 1 {
				t.Errorf("%d alerts", n)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			s = served(t, dir, machine.options("it was set by hand"))
			admin = inside(s.Server)
			if check := clockCheck(t, admin); !check.OK {
				t.Errorf("accepted: %+v", check)
			}
			admin.must(t, "POST", "/v1/keys/phi/rotate", api.RotateKeyRequest{}, nil)
			asks(admin, "after it was accepted, and the version of the future rotated", http.StatusOK)
			if n := rollbacks(t, admin); n != 1 {
				t.Errorf("%d alerts in the end", n)
			}
			var verified api.AuditVerification
			admin.must(t, "GET", "/v1/audit/verify", nil, &verified)
		})
	}
}
