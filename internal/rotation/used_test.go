package rotation_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/sqlitetest"
)

func (h *house) version(name string) uint32 {
	h.Helper()
	k, err := h.Key(h.Context(), name)
	h.must(err)
	return k.Versions[len(k.Versions)-1].Version
}

// A server follows a version that has nearly used up its operations or bytes with the next one, at once and before anybody is refused; and
// one whose rest is too little for what somebody wants. What no version has room for makes none.
func TestUsedUpVersionsAreFollowed(t *testing.T) {
	h := open(t, "listen: []\n")
	h.served()
	h.await("key_rotation", "rotation_checked", "key")
	for name, in := range map[string]api.CreateKeyRequest{"calls": {MaxOperations: 100}, "bytes": {MaxBytes: 1000}, "wide": {MaxOperations: 10}} {
		in.Name, in.Period = name, "0"
		_, err := h.CreateKey(t.Context(), in)
		h.must(err)
	}
	seal := func(name string, n int) error {
		_, err := h.Encrypt(t.Context(), name, api.EncryptRequest{Plaintext: make([]byte, n)})
		return err
	}
	for range 92 {
		h.must(seal("calls", 1))
	}
	h.await("key_rotation", "rotated", "key/calls")
	for range 9 {
		h.must(seal("bytes", 100))
	}
	h.await("key_rotation", "rotated", "key/bytes")
	if calls, bytes := h.version("calls"), h.version("bytes"); calls != 2 || bytes != 2 {
		t.Errorf("versions %d and %d", calls, bytes)
	}
	many := func(n int) error {
		items := make([]api.EncryptRequest, n)
		for i := range items {
			items[i].Plaintext = []byte{byte(i)}
		}
		out, err := h.EncryptBatch(t.Context(), "wide", items)
		for _, one := range out {
			if err == nil && one.Error != nil {
				err = fmt.Errorf("%s", one.Error.Code)
			}
		}
		return err
	}
	h.must(many(4))
	if err := many(11); err == nil {
		t.Error("a version protected more than it may")
	}
	if err := many(8); err == nil {
		t.Error("a version protected more than it may")
	}
	h.await("key_rotation", "rotated", "key/wide")
	h.must(many(8))
	if n := h.version("wide"); n != 2 {
		t.Errorf("version %d: what no version has room for had one made", n)
	}
}

// A table with more values than a version may protect is encrypted all the same, under one version after another.
func TestDatasetLargerThanAVersion(t *testing.T) {
	h := open(t, "listen: []\n")
	h.served()
	file := filepath.Join(t.TempDir(), "app.db")
	statements := []string{`CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)`}
	for i := range 70 {
		statements = append(statements, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'value %d')`, i, i))
	}
	sqlitetest.Exec(t, file, statements...)
	_, err := h.CreateKey(t.Context(), api.CreateKeyRequest{Name: "small", Period: "0", MaxOperations: 33})
	h.must(err)
	_, err = h.AddDataset(t.Context(), api.AddDatasetRequest{Name: "t", DB: "sqlite://" + file, Table: "t", Columns: map[string]string{"v": "small"}})
	h.must(err)
	run, err := h.EncryptDataset(t.Context(), "t", api.DatasetRunRequest{BatchSize: 10, Workers: 1})
	h.must(err)
	if j := h.end(run.Job); j.State != "done" || j.Done != 70 {
		t.Errorf("%+v", j)
	}
	if n := h.version("small"); n < 3 {
		t.Errorf("70 values of 33 a version made %d versions", n)
	}
}

// A key that was suspended while its time came is rotated when it is resumed, not at the next check of the day.
func TestResumedKeyThatIsDue(t *testing.T) {
	h := open(t, "listen: []\n")
	h.key("k", "", "10d")
	h.served()
	h.await("key_rotation", "rotation_checked", "key")
	_, err := h.SuspendKey(t.Context(), "k", api.VersionStateRequest{})
	h.must(err)
	h.pass(11 * day)
	_, err = h.ResumeKey(t.Context(), "k", api.VersionStateRequest{})
	h.must(err)
	h.await("key_rotation", "rotated", "key/k")
}

// A rotation that failed and was given up is tried again within the hour, once what kept it is mended and nobody said so.
func TestGivenUpRotationIsTriedAgain(t *testing.T) {
	h := open(t, "listen: []\n")
	h.key("bad", "", "10d")
	h.served()
	h.await("key_rotation", "rotation_checked", "key")
	db := sqlitetest.Open(t, filepath.Join(h.dir, "keyturn.db"))
	change := func(to int) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `UPDATE keys SET suspended_decrypts = $1`, to)
		h.must(err)
	}
	change(1) // not by keyturn: the row's MAC says so
	h.pass(11 * day)
	h.await("alert", "rotation_failed", "key/bad")
	for _, j := range h.ends("rotation-run") {
		if j.State != "failed" {
			t.Errorf("%+v", j)
		}
	}
	change(0)
	h.pass(time.Hour)
	h.await("key_rotation", "rotated", "key/bad")
}
