package reencrypt_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// forged is a ciphertext whose header names another version; and another key, unless that is nil.
func forged(tb testing.TB, text string, key *envelope.KeyID, version uint32) string {
	tb.Helper()
	blob, err := envelope.AppendDecodedText(nil, []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	if key != nil {
		copy(blob[4:20], key[:])
	}
	binary.BigEndian.PutUint32(blob[20:24], version)
	return string(envelope.AppendText(nil, blob))
}

// TestInventedVersion: a value under a version that its key doesn't have is unreadable like any other that doesn't open. It
// costs no further pass, and isn't the application's fault.
func TestInventedVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 50, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		keys.Rotate()
		m.Put(9, forged(t, m.Get(9), nil, 999))
		begun := time.Now()
		var r connectortest.Run
		err := r.Finish(t.Context(), kinded(w, reencrypt.KindReencrypt))
		if fault.CodeOf(err) != api.CodeIntegrity || r.State.Pass != 1 || r.State.Left != 1 || time.Since(begun) > time.Minute {
			t.Errorf("after %v: %+v, %v", time.Since(begun), r.State, err)
		}
		if len(r.Failed) != 1 || r.Failed[0].Item != "9" || !strings.Contains(r.Failed[0].Reason, "version") || r.State.Counts.Changed != 49 {
			t.Errorf("listed as failed: %+v, counted %+v", r.Failed, r.State.Counts)
		}
	})
}

// TestFailuresCountOnce: values that can't be done fail in every pass that the application makes necessary, and are as many
// as they were.
func TestFailuresCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, keys, w := memory(t, 300, reencrypt.KindEncrypt)
		connectortest.MustFinish(t, w)
		keys.Rotate()
		old := m.Get(300)
		for id := int64(1); id <= 90; id++ {
			m.Put(id, "kt1.AAAA")
		}
		m.BeforeCensus = func() error { m.Put(300, old); return nil }
		var r connectortest.Run
		err := r.Finish(t.Context(), kinded(w, reencrypt.KindReencrypt))
		if fault.CodeOf(err) != api.CodeConflict || r.State.Pass < 100 {
			t.Errorf("pass %d: %v", r.State.Pass, err)
		}
		if c := r.State.Counts; c.Failed != 90 || c.Unreadable != 90 {
			t.Errorf("counted %+v", c)
		}
	})
}

// TestInventedKeysHideNothing: somebody floods a table with values of invented keys, so that those of a real one get lost
// among them. A census, a destruction and the removal of the dataset see them all the same.
func TestInventedKeysHideNothing(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		c.run(c.encrypt)
		_, err = c.CreateKey(c.Context(), api.CreateKeyRequest{Name: "other", Purpose: "phi"})
		c.must(err)
		sealed, err := c.Encrypt(c.Context(), "other", api.EncryptRequest{Plaintext: []byte("copied here"), Context: map[string]string{"of": "another table"}})
		c.must(err)
		_, err = c.RotateKey(c.Context(), "other", api.RotateKeyRequest{})
		c.must(err)
		var rows []string
		for i := range 3000 {
			key := envelope.NewKeyID()
			rows = append(rows, fmt.Sprintf("(%d, '%s')", 1000+i, forged(c, sealed.Ciphertext, &key, uint32(1+i))))
		}
		c.app.Exec(c, "INSERT INTO patients VALUES "+strings.Join(rows, ", ")+", (9999, '"+sealed.Ciphertext+"')")
		want := []api.CensusVersion{{Key: "other", Version: 1, State: "deactivated", Rows: 1}, {Key: "phi", Version: 1, State: "active", Rows: 99}}
		if got := c.census(); got.Unreadable != 3000 || !slices.Equal(got.Versions, want) {
			c.Errorf("census: %+v", got)
		}
		_, err = c.DestroyKey(c.Context(), "other", api.VersionStateRequest{Version: 1})
		if keyturn.CodeOf(err) != api.CodeInUse || !strings.Contains(err.Error(), "1 values in dataset/patients") {
			c.Errorf("destroying a version that a value stands under: %v", err)
		}
		if err := c.RemoveDataset(c.Context(), "patients"); keyturn.CodeOf(err) != api.CodeInUse || !strings.Contains(err.Error(), "other:1") {
			c.Errorf("removing the dataset: %v", err)
		}
	})
}

// TestInventedVersionOfADataset: so it is with keys in a store, and the value counts as unreadable in a census.
func TestInventedVersionOfADataset(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		c.run(c.encrypt)
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		c.app.Exec(c, "UPDATE patients SET ssn = '"+forged(c, c.value("9"), nil, 999)+"' WHERE id = 9")
		run, err := c.reencrypt()
		c.must(err)
		j := c.finish(run.Job)
		if list := c.reasons(run.Job); j.State != "failed" || j.Run.Changed != 98 || len(list) != 1 || !strings.Contains(list["9"], "version") {
			c.Errorf("it ended %s: %s; %+v; listed: %v", j.State, j.Error, j.Run, list)
		}
		if got := c.census(); got.Unreadable != 1 || len(got.Versions) != 1 || got.Versions[0].Rows != 98 {
			c.Errorf("census: %+v", got)
		}
	})
}
