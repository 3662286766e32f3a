package soak

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/keyring"
)

// setMade is what `escrow split --json` prints.
type setMade struct {
	Set   string
	Files []string
}

// recovered is the master key that the first n files of a set give, in a file.
func (s setMade) recovered(t *testing.T, k *Keyturn, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recovered.key")
	args := []string{"escrow", "combine", "--out", path}
	for _, f := range s.Files[:n] {
		args = append(args, "--share-file", f)
	}
	k.OK(nil, args...)
	return path
}

// openedWith says whether the store opens with the master key in a file, and with it alone.
func (k *Keyturn) openedWith(path string) bool {
	k.tb.Helper()
	other := *k
	other.Env = append(append([]string{}, k.Env...), "KEYTURN_MASTER_KEYS=file://"+path)
	_, errs, code := other.Run(nil, "key", "list")
	if code != 0 && code != api.ExitIntegrity {
		k.tb.Fatalf("key list: exit %d\n%s", code, errs)
	}
	return code == 0
}

// mastersOpen says which of the configured master keys open everything.
func (k *Keyturn) mastersOpen() map[string]bool {
	k.tb.Helper()
	var list api.MasterKeyList
	k.JSON(&list, "master", "list")
	out := map[string]bool{}
	for _, m := range list.MasterKeys {
		out[strings.SplitN(m.URL, ":", 2)[0]] = m.OK
	}
	return out
}

// written is the set whose three shares stand in a directory.
func written(dir string) (s setMade) {
	for n := range 3 {
		s.Files = append(s.Files, filepath.Join(dir, fmt.Sprintf("escrow-share-%d-of-3.txt", n+1)))
	}
	return s
}

// verified is what `escrow verify` says of a set's shares, with its exit status.
func (s setMade) verified(k *Keyturn) (string, int) {
	args := []string{"escrow", "verify"}
	for _, f := range s.Files {
		args = append(args, "--share-file", f)
	}
	out, errs, code := k.Run(nil, args...)
	return string(out) + string(errs), code
}

// TestEscrowKilledAroundItsCommit: the process ends just before the new set counts, or just after. Its shares are whole on disk
// both times. Before, they are of a set that never counted, which is said of them, and the set that was there opens the
// store; after, they open the store. No split leaves a store whose set nobody has.
func TestEscrowKilledAroundItsCommit(t *testing.T) {
	tagged := Failing(t)
	for _, at := range []string{"before", "after"} {
		t.Run(at, func(t *testing.T) {
			k := New(t)
			killed := *k
			killed.path, killed.Env = tagged, []string{"KEYTURN_FAIL=kms/" + at + "-escrow:1"}
			dir := t.TempDir()
			var last setMade
			for i, configured := range []bool{false, true} { // the first set, and one in the place of another
				into := filepath.Join(dir, fmt.Sprint("killed", i))
				if _, errs, code := killed.Run(nil, "escrow", "split", "--shares", "3", "--threshold", "2", "--yes", "--out", into); code != 137 {
					t.Fatalf("exit %d, want 137\n%s", code, errs)
				}
				fresh := written(into)
				if got := k.openedWith(fresh.recovered(t, k, 2)); got != (at == "after") {
					t.Errorf("killed %s the commit: the new shares open the store: %v", at, got)
				}
				if said, code := fresh.verified(k); (code == 0) != (at == "after") || at == "before" && !strings.Contains(said, "never counted") {
					t.Errorf("verify of the new shares ends with %d and says:\n%s", code, said)
				}
				if configured {
					if got := k.openedWith(last.recovered(t, k, 2)); got != (at == "before") {
						t.Errorf("killed %s the commit: the shares of the set before open the store: %v", at, got)
					}
				}
				if open := k.mastersOpen(); !open["file"] || open["escrow"] != configured {
					t.Errorf("opening: %v", open)
				}
				if at == "after" {
					out, _, code := k.Run(nil, "doctor", "--strict")
					if code == 0 || !bytes.Contains(out, []byte("escrow shares")) {
						t.Errorf("doctor --strict ends with %d and says:\n%s", code, out)
					}
				}
				// The configuration follows the commit: where it doesn't name the set yet, master keys can't be changed past it.
				if _, errs, code := k.Run(nil, "master", "rotate"); (code == 0) != (configured || at == "before") {
					t.Errorf("master rotate: exit %d\n%s", code, errs)
				}
				k.JSON(&last, "escrow", "split", "--shares", "3", "--threshold", "2", "--yes", "--out", filepath.Join(dir, fmt.Sprint("whole", i)))
				if !k.openedWith(last.recovered(t, k, 2)) {
					t.Error("the shares that were written don't open the store")
				}
				k.OK(nil, "master", "rotate")
				k.OK(nil, "master", "verify")
			}
		})
	}
}

// TestCampaignKillEscrow kills `escrow split` at random moments: the store opens after each kill, and the shares of the set
// that counts are whole on disk, whether it is the one of before or the new one; those of the other open nothing. FAULTS row 1.
func TestCampaignKillEscrow(t *testing.T) {
	rng, seed := Seed(t)
	budget := NewBudget(t, 12)
	k := New(t)
	dir := t.TempDir()
	var last setMade
	started := time.Now()
	k.JSON(&last, "escrow", "split", "--shares", "3", "--threshold", "2", "--out", filepath.Join(dir, "first"))
	whole := time.Since(started) // on this machine, as busy as it is now
	kills, splits, unheard := 0, 1, 0
	for i := 0; budget.More(i); i++ {
		into := filepath.Join(dir, fmt.Sprint(i))
		out, killed, _ := k.KillAfter(time.Duration(rng.Int64N(int64(whole+whole/4))), nil,
			"escrow", "split", "--shares", "3", "--threshold", "2", "--yes", "--json", "--out", into)
		before := last
		var made setMade
		if json.Unmarshal(out, &made) == nil { // answered, whether it was killed after that or not
			last = made
			splits++
		}
		if killed {
			kills++
		}
		var now api.Escrow
		k.JSON(&now, "escrow", "show")
		if last.Set != before.Set && now.Set != last.Set {
			t.Fatalf("seed %d: set %s was answered, and the store has %s", seed, last.Set, now.Set)
		}
		if open := k.mastersOpen(); !open["file"] || !open["escrow"] {
			t.Fatalf("seed %d, split %d: opening %v", seed, i, open)
		}
		if now.Set != last.Set { // it counts, and nobody was told: then its shares are there all the same
			unheard++
			last = written(into)
			last.Set = now.Set
		}
		if !k.openedWith(last.recovered(t, k, 2)) {
			t.Fatalf("seed %d, split %d: the shares of the set that counts, %s, don't open the store", seed, i, now.Set)
		}
		if last.Set != before.Set && k.openedWith(before.recovered(t, k, 2)) {
			t.Fatalf("seed %d, split %d: the shares of the set before, %s, still open the store", seed, i, before.Set)
		}
	}
	k.OK(nil, "audit", "verify")
	Report("kill-escrow", seed, "%d kills of escrow split, %d splits acknowledged, %d that counted and whose shares were whole before anybody was told: 0 stores that don't open, 0 sets that count without their shares, 0 shares of an old set that open", kills, splits, unheard)
}

// TestEscrowSharesAreNowhereElse: a server at its most talkative makes two sets; neither a share nor the key that they give is
// in its log, in what commands print, in the audit log, or in any file but the shares' own. P3, FAULTS row 15.
func TestEscrowSharesAreNowhereElse(t *testing.T) {
	k := New(t)
	k.Env = append(k.Env, "KEYTURN_LOG__LEVEL=debug", "TMPDIR="+t.TempDir())
	server := Serve(k)
	dir := t.TempDir()
	var said bytes.Buffer
	run := func(args ...string) {
		out, errs, _ := k.Run(nil, args...)
		fmt.Fprintf(&said, "%s\n%s\n", out, errs)
	}
	var canaries []Canary
	for i := range 2 {
		out := filepath.Join(dir, fmt.Sprint(i))
		run("escrow", "split", "--shares", "3", "--threshold", "2", "--yes", "--out", out)
		set := setMade{}
		for n := range 3 {
			set.Files = append(set.Files, filepath.Join(out, fmt.Sprintf("escrow-share-%d-of-3.txt", n+1)))
			canaries = append(canaries, shareCanaries(t, set.Files[n])...)
		}
		text, err := os.ReadFile(set.recovered(t, k, 2))
		if err != nil {
			t.Fatal(err)
		}
		key, err := keyring.ParseKeyText(text)
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, Canary{"escrow key", key.Expose()})
		damaged := filepath.Join(dir, "damaged")
		share, err := os.ReadFile(set.Files[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(damaged, append(share, 'X'), 0o600); err != nil {
			t.Fatal(err)
		}
		run("escrow", "verify", "--share-file", damaged, "--share-file", set.Files[1])
		run("escrow", "verify", "--record", "--share-file", set.Files[0], "--share-file", set.Files[1])
		run("escrow", "combine", "--share-file", damaged, "--share-file", set.Files[1], "--out", filepath.Join(dir, "none"))
		run("master", "rotate", "--keks")
		run("doctor")
	}
	run("audit", "export")
	server.MustEnd()
	leaks := append(Scan(canaries, "log", []byte(server.Log())), Scan(canaries, "output", said.Bytes())...)
	found, files, err := ScanTree(canaries, k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(leaks, found...) {
		t.Errorf("%s found in %s as %s", l.Canary, l.Place, l.Form)
	}
	if len(canaries) != 2*(3*3+1) || files < 4 || said.Len() < 1000 {
		t.Errorf("%d canaries in %d files and %d bytes: too few to mean anything", len(canaries), files, said.Len())
	}
}

// shareCanaries are the secret part of a share: its second and third line, which hold no public byte, and both as one.
func shareCanaries(t *testing.T, path string) []Canary {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	second, third := lines[len(lines)-3][10:], lines[len(lines)-2]
	joined := strings.ReplaceAll(second+third, "-", "")
	return []Canary{{"share " + path, []byte(second)}, {"share " + path, []byte(third)}, {"share " + path, []byte(joined)}}
}
