package soak

import (
	"sync"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
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
