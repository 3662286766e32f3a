package soak

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// TestServerDoesNotVouchForAMasterKeyThatIsGone: with the file of a master key replaced under a running server, verify
// and doctor say so, nothing is wrapped under the held copy, and the other key is not let go; the store opens afterwards.
func TestServerDoesNotVouchForAMasterKeyThatIsGone(t *testing.T) {
	k := New(t)
	second := filepath.Join(t.TempDir(), "second.key")
	k.OK(nil, "master", "generate", "--out", second)
	k.OK(nil, "master", "add", "file://"+second)
	var log bytes.Buffer
	cmd := k.Command(context.Background(), "serve", "--listen", "unix://"+filepath.Join(k.Dir, "s.sock"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, k, &log)
	other := filepath.Join(t.TempDir(), "other.key")
	k.OK(nil, "master", "generate", "--out", other)
	if err := os.Rename(other, second); err != nil {
		t.Fatal(err)
	}
	var list api.MasterKeyList
	k.JSON(&list, "master", "list")
	if len(list.MasterKeys) != 2 || !list.MasterKeys[0].OK || list.MasterKeys[1].OK || list.MasterKeys[1].Detail == "" {
		t.Errorf("master list says %+v", list.MasterKeys)
	}
	for _, args := range [][]string{{"master", "rotate"}, {"master", "rotate", "--keks"}, {"doctor", "--strict"}, {"master", "remove", "file://" + filepath.Join(k.Dir, "master.key"), "--yes"}} {
		if _, errs, code := k.Run(nil, args...); code == 0 {
			t.Errorf("%v ended well: %s", args, errs)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("serve: %v\n%s", err, log.String())
	}
	k.OK(nil, "key", "list")
}
