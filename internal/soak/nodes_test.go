package soak

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// TestNodesRotateTogether: several real servers rotate one key at the same time, each again and again. Every rotation that was
// acknowledged made one version, their numbers are dense, one is active, and every node says the same (FAULTS row 6, I2, I3).
func TestNodesRotateTogether(t *testing.T) {
	nodes := NewNodes(t, 3, NodesOptions{})
	nodes.Start()
	if _, err := nodes.All[0].Client().CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	const each = 8
	var mu sync.Mutex
	made := map[uint32]string{}
	busy := 0
	var all sync.WaitGroup
	for _, node := range nodes.All {
		for range 2 {
			client := node.Client()
			all.Go(func() {
				for range each {
					k, err := client.RotateKey(t.Context(), "phi", api.RotateKeyRequest{Reason: "test"})
					mu.Lock()
					switch {
					case keyturn.CodeOf(err) == api.CodeBusy:
						busy++ // others kept changing it: said, and nothing happened
					case err != nil:
						t.Errorf("%s: %v", node.Name, err)
					default:
						if other, twice := made[uint32(len(k.Versions))]; twice {
							t.Errorf("version %d was acknowledged to %s and to %s", len(k.Versions), other, node.Name)
						}
						made[uint32(len(k.Versions))] = node.Name
					}
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	for _, node := range nodes.All {
		k, err := node.Client().Key(t.Context(), "phi")
		if err != nil {
			t.Fatal(err)
		}
		if len(k.Versions) != len(made)+1 {
			t.Errorf("%s: %d versions after %d acknowledged rotations", node.Name, len(k.Versions), len(made))
		}
		wantOneActive(t, k)
	}
	nodes.wantSound()
	Report("rotate-together", 0, "3 nodes, %d rotations of one key at once, %d refused as busy: versions dense, one active", len(made), busy)
}

// wantOneActive: versions are dense, and the last one is the one that is active.
func wantOneActive(t *testing.T, k api.Key) {
	t.Helper()
	active := 0
	for i, v := range k.Versions {
		if v.Version != uint32(i+1) {
			t.Errorf("versions aren't dense: %d at place %d", v.Version, i+1)
		}
		if v.State == "active" {
			active++
		}
	}
	if active != 1 || k.Versions[len(k.Versions)-1].State != "active" {
		t.Errorf("%d active versions of %d", active, len(k.Versions))
	}
}

// wantSound verifies the log and asks the doctor, on the first node.
func (n *Nodes) wantSound() {
	n.tb.Helper()
	var v api.AuditVerification
	n.All[0].JSON(&v, "audit", "verify")
	if !v.OK {
		n.tb.Fatalf("the audit log does not verify: %s", v.Bad)
	}
	var d api.Doctor
	n.All[0].JSON(&d, "doctor")
	if !d.OK {
		n.tb.Fatalf("doctor: %+v", d.Checks)
	}
}

// TestAFencedNodeEndsItself: a node is stopped for longer than its lease of the audit log, and another that starts takes its
// shard (at once, or when the database has taken back the transaction that it may be in). When it goes on it answers nothing any more, ends by itself with an error that says why, and a new start works.
func TestAFencedNodeEndsItself(t *testing.T) {
	server := pgtest.Start(t)
	nodes := NewNodes(t, 2, NodesOptions{Server: server})
	away, other := nodes.All[0], nodes.All[1]
	away.Start()
	if _, err := away.Client().CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	away.Pause()
	if err := server.Exec(within(t), nodes.URL, `UPDATE keyturn.audit_shards SET lease_until = 1`); err != nil {
		t.Fatal(err)
	}
	other.Start()
	if _, err := other.Client().RotateKey(t.Context(), "phi", api.RotateKeyRequest{}); err != nil {
		t.Fatal(err)
	}
	client := away.Client(keyturn.WithTimeout(time.Minute))
	away.Continue()
	out, err := client.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte("x")})
	if err == nil {
		t.Errorf("a node that lost its shard sealed under version %d", out.Version)
	}
	select {
	case <-away.exited:
	case <-time.After(time.Minute):
		t.Fatalf("it goes on:\n%s", away.Log())
	}
	if code := away.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(away.Log(), "another node has taken") {
		t.Errorf("exit %d:\n%s", code, away.Log())
	}
	nodes.Start()
	if out, err := client.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte("x")}); err != nil || out.Version != 2 {
		t.Errorf("after a new start: version %d, %v", out.Version, err)
	}
	nodes.wantSound()
}
