package soak

import (
	"os"
	"path/filepath"
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
	server := Serve(k)
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
	server.MustEnd()
	k.OK(nil, "key", "list")
}

// TestMasterChangesKilledAfterTheirCommit: the process ends when the store is changed and the configuration isn't. After
// an addition the new key opens the store, and whatever is done before the command is given again doesn't take that away;
// after a removal it doesn't, verify and doctor say so, and the command ends it.
func TestMasterChangesKilledAfterTheirCommit(t *testing.T) {
	tagged := Failing(t)
	k := New(t)
	killed := *k
	killed.path, killed.Env = tagged, append(append([]string{}, k.Env...), "KEYTURN_FAIL=kms/after-masters:1")
	second := filepath.Join(t.TempDir(), "second.key")
	k.OK(nil, "master", "generate", "--out", second)
	url := "file://" + second
	kill := func(args ...string) {
		t.Helper()
		if _, errs, code := killed.Run(nil, args...); code != 137 {
			t.Fatalf("%v: exit %d, want 137\n%s", args, code, errs)
		}
	}
	list := func(configured, elsewhere int) {
		t.Helper()
		var list api.MasterKeyList
		k.JSON(&list, "master", "list")
		if len(list.MasterKeys) != configured || len(list.Elsewhere) != elsewhere || elsewhere > 0 && list.Elsewhere[0].URL != url {
			t.Errorf("%+v", list)
		}
	}
	kill("master", "add", url)
	list(1, 1)
	k.OK(nil, "master", "rotate")
	if !k.openedWith(second) {
		t.Error("the key that was added is gone after a rotation")
	}
	if _, _, code := k.Run(nil, "master", "rotate", "--keks"); code == 0 {
		t.Error("new key-encryption keys that the key that was added doesn't open")
	}
	k.OK(nil, "master", "add", url)
	list(2, 0)
	k.OK(nil, "master", "rotate", "--keks")
	k.OK(nil, "master", "verify")

	kill("master", "remove", url, "--yes")
	list(2, 0)
	if k.openedWith(second) {
		t.Error("the key that was removed opens the store")
	}
	for _, args := range [][]string{{"master", "verify"}, {"doctor"}} {
		if _, _, code := k.Run(nil, args...); code == 0 {
			t.Errorf("%v finds nothing", args)
		}
	}
	k.OK(nil, "master", "remove", url, "--yes")
	list(1, 0)
	k.OK(nil, "doctor", "--strict")

	kill("master", "add", url) // and given up instead
	kill("master", "remove", url, "--yes")
	list(1, 0)
	if k.openedWith(second) {
		t.Error("the key that was given up opens the store")
	}
	k.OK(nil, "doctor", "--strict")
}
