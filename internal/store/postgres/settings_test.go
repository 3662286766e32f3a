package postgres

import (
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// TestSettings is the table of what a session must have; the real server's side of it is TestNotDurableIsRefused.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		fsync, synchronous string
		version            int
		ok                 bool
	}{
		{"on", "on", 150017, true},
		{"on", "remote_apply", 180000, true},
		{"on", "remote_write", 150000, true},
		{"on", "local", 150000, true},
		{"on", "off", 150017, false},
		{"off", "on", 150017, false},
		{"on", "on", 149999, false},
	} {
		err := checkSettings(c.fsync, c.synchronous, c.version)
		if (err == nil) != c.ok {
			t.Errorf("fsync=%s synchronous_commit=%s version %d: %v", c.fsync, c.synchronous, c.version, err)
		}
		if err != nil && (fault.CodeOf(err) != api.CodeUnavailable || fault.NextOf(err) == "") {
			t.Errorf("%v has the code %s and the next step %q", err, fault.CodeOf(err), fault.NextOf(err))
		}
	}
}
