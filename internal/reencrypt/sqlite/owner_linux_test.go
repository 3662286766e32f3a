package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
	"github.com/keyturn/keyturn/internal/reencrypt/sqlite"
)

const nobody = 65534

// chown gives the file to somebody else, where the test may.
func chown(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, nobody, nobody)
}

func owner(tb testing.TB, path string) string {
	tb.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("\nuid %d, gid %d\n", st.Uid, st.Gid)
}

// asNobody runs fn with the rights of a user that owns nothing, who may look into the directories on the way to path.
func asNobody(t *testing.T, path string, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		fn() // this user's own rights are checked anyway
		return
	}
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // the identity for file access is the thread's; it is given back below
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer unix.Setfsuid(0) //nolint:errcheck // it can't fail for what was ours
	fn()
}

// TestRights: a file that may only be read can be looked at and counted, and a write says what to do; one that may not even be
// read says so when it is opened.
func TestRights(t *testing.T) {
	app := fresh(t, "journal_mode(DELETE)")
	app.Exec(t, "CREATE TABLE people (id INTEGER PRIMARY KEY, ssn TEXT)", "INSERT INTO people VALUES (1, 'one')")
	path := pathOf(t, app)
	mode := func(m os.FileMode) {
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o444)
	asNobody(t, path, func() {
		db := open(t, app.URL)
		w := connectortest.Work(t, db, "people", map[string]*connectortest.KeySet{"ssn": connectortest.NewKeySet(envelope.SuiteStandard)}, reencrypt.KindEncrypt)
		if tally, err := reencrypt.Count(t.Context(), w.Target, 1, connectortest.All); err != nil || tally[0].Plaintext != 1 {
			t.Errorf("counting a file that may be read: %+v, %v", tally, err)
		}
		writer, err := w.Target.Writer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		b := reencrypt.NewBatch(1, 1)
		p := pageOf(t, w, 10)
		b.Keys[0].Append(p.Keys[0].At(0))
		b.Old[0].Add([]byte("one"), reencrypt.Text)
		b.New[0].Add([]byte("uno"), reencrypt.Text)
		if n, err := writer.Swap(t.Context(), b, 0, 1); n != 0 || fault.CodeOf(err) != api.CodeUnavailable || fault.NextOf(err) == "" {
			t.Errorf("writing to a file that may only be read: %d, %v", n, err)
		}
	})
	mode(0)
	asNobody(t, path, func() {
		_, err := sqlite.Driver{}.Open(t.Context(), reencrypt.NewDSN(app.URL), reencrypt.Session{})
		if fault.CodeOf(err) != api.CodeDenied || fault.FieldOf(err) != "db" || fault.NextOf(err) == "" {
			t.Errorf("opening a file that may not be read: %v", err)
		}
	})
}
