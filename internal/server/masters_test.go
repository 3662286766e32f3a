package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// With two master keys, one that was away when the server started takes part once it is back, so that the other one may go then.
// While both are away the store is shut after a time, and it is open again as soon as one of them is back.
func TestMasterKeysComeAndGo(t *testing.T) {
	dir := made(t)
	first, second := filepath.Join(dir, MasterKeyFile), filepath.Join(dir, "second.key")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if text[0]++; text[0] > 'Z' || text[0] < 'A' { // another key, still in base64
		text[0] = 'A'
	}
	if err := os.WriteFile(second, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, Options{Embedded: true, Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyturn.NewClient(s.InProcess()).AddMasterKey(t.Context(), "file://"+second); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	move(second, second+".away")
	s = opened(t, dir, Options{})
	reaches := func(want api.Code) {
		t.Helper()
		if err := s.reachMaster(t.Context()); fault.CodeOf(err) != want {
			t.Fatalf("%v, want %q", err, want)
		}
	}
	reaches("")
	move(second+".away", second)
	reaches("")
	move(first, first+".away")
	reaches("")
	move(second, second+".away")
	if err := s.reachMaster(t.Context()); err == nil {
		t.Fatal("no master key is there, and one was reached")
	}
	s.ring.Limit(time.Hour) // as serving does
	s.ring.Shut()
	if s.ring.Usable() == nil {
		t.Fatal("the ring is shut and usable")
	}
	move(second+".away", second)
	reaches("")
	if err := s.ring.Usable(); err != nil {
		t.Error(err)
	}
}

// The error of keys that were shut for an outage names keyturn master verify, so that answers: what is wrong with each, of
// what the URLs give now, recorded. Nothing else does, and only for the administrator who was known before.
func TestVerifyAnswersWhileTheKeysAreShut(t *testing.T) {
	dir := made(t)
	s := opened(t, dir, Options{})
	client := keyturn.NewClient(s.InProcess())
	shut := func() {
		t.Helper()
		s.ring.Limit(time.Hour) // as serving does
		s.ring.Shut()
		s.signIns.Drop()
	}
	shut()
	if _, err := client.VerifyMasterKeys(t.Context()); !refused(err, "the log of keyturn serve") {
		t.Errorf("nobody was known: %v", err)
	}
	if err := s.reachMaster(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.knowAdministrator(t.Context()) // as the watch over the master keys does
	shut()
	key := filepath.Join(dir, MasterKeyFile)
	for _, away := range []bool{true, false} {
		from, to := key, key+".away"
		if !away {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		list, err := client.VerifyMasterKeys(t.Context())
		if err != nil || len(list.MasterKeys) != 1 || list.MasterKeys[0].OK == away || (list.MasterKeys[0].Detail == "") == away {
			t.Errorf("away: %v: %+v, %v", away, list, err)
		}
		if _, err := client.MasterKeys(t.Context()); !refused(err, "keyturn master verify") {
			t.Errorf("another request: %v", err)
		}
	}
	if err := s.reachMaster(t.Context()); err != nil {
		t.Fatal(err)
	}
	verified := 0
	for line, err := range client.AuditEvents(t.Context(), keyturn.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(line), `"action":"verified","success":true`) {
			verified++
		}
	}
	if verified != 2 {
		t.Errorf("%d verifications are recorded", verified)
	}
}

// refused says whether a client was told that nothing can be done now, with a next step of these words.
func refused(err error, next string) bool {
	var e *keyturn.Error
	return errors.As(err, &e) && e.Code == api.CodeUnavailable && strings.Contains(e.Next, next)
}
