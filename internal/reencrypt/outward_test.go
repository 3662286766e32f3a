package reencrypt

import (
	"context"
	"errors"
	"testing"
)

func TestOutward(t *testing.T) {
	for address, ok := range map[string]bool{
		"10.0.0.7:5432": true, "192.168.1.2:3306": true, "203.0.113.9:5432": true, "[2001:db8::1]:5432": true, "[fd12::1]:5432": true,
		"127.0.0.1:5432": false, "127.8.9.1:5432": false, "[::1]:5432": false, "[::ffff:127.0.0.1]:5432": false, "0.0.0.0:5432": false, "[::]:5432": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:5432": false, "[ff02::1]:5432": false, "/run/postgresql/.s.PGSQL.5432": false, "": false,
	} {
		if err := outward("tcp", address, nil); (err == nil) != ok || err != nil && !errors.Is(err, ErrOwnMachine) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// sessions is a driver that keeps how it was opened.
type sessions struct {
	Driver
	url  string
	last Session
}

func (d *sessions) Open(_ context.Context, dsn DSN, s Session) (Database, error) {
	d.url, d.last = dsn.Reveal(), s
	return nil, nil
}

// TestURLsRememberTheNetwork: what came over the network is still known to have done so when a job unseals it.
func TestURLsRememberTheNetwork(t *testing.T) {
	for _, network := range []bool{true, false} {
		given := NewDSN("postgres://app:secret@db.example.org/clinic")
		given.network = network
		var d sessions
		if _, err := open(t.Context(), &d, dsnOf(given.sealedText()), Session{}); err != nil || d.url != given.Reveal() || (d.last.Dial != nil) != network {
			t.Errorf("%v: %v, %q, %+v", network, err, d.url, d.last)
		}
	}
}
