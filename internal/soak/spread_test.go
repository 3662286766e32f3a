package soak

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// TestAPausedOwnerWritesNothingStale: the node that re-encrypts a table is stopped in the midst of a chunk (SIGSTOP). Another
// takes the job over and goes on; the first one wakes up, finds the job lost, and writes neither progress nor events. Every
// row is moved, and opens; the log says which node did how much (FAULTS rows 6 and 13).
func TestAPausedOwnerWritesNothingStale(t *testing.T) {
	ctx, server := within(t), pgtest.Start(t)
	app := server.Database(t)
	const rows = 3000
	if err := server.Exec(t.Context(), app, `CREATE TABLE patients (id bigint PRIMARY KEY, ssn text NOT NULL)`,
		`INSERT INTO patients SELECT n, '900-00-' || n FROM generate_series(1, 3000) n`); err != nil {
		t.Fatal(err)
	}
	nodes := NewNodes(t, 2, NodesOptions{Server: server})
	nodes.Start()
	first, second := nodes.All[0], nodes.All[1]
	client := second.Client(keyturn.WithTimeout(2 * time.Minute))
	if _, err := client.CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	first.OK(nil, "dataset", "add", "patients", "--db", app, "--table", "public.patients", "--pk", "id", "--column", "ssn=phi")
	first.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	if _, err := client.RotateKey(t.Context(), "phi", api.RotateKeyRequest{}); err != nil {
		t.Fatal(err)
	}
	run, err := client.ReencryptDataset(t.Context(), "patients", api.DatasetRunRequest{Rate: 400, BatchSize: 20})
	if err != nil {
		t.Fatal(err)
	}
	owner := nodes.owner(ctx, t, server, run.Job)
	owner.Pause()
	other := first
	if owner == first {
		other = second
	}
	// As if its lease had run out: the job is anybody's.
	if err := server.Exec(ctx, nodes.URL, `UPDATE keyturn.jobs SET lease_until = 1 WHERE id = '`+run.Job+`'`); err != nil {
		t.Fatal(err)
	}
	watcher := other.Client(keyturn.WithTimeout(2 * time.Minute))
	for job, err := range watcher.WatchJob(ctx, run.Job) {
		if err != nil {
			t.Fatal(err)
		}
		if job.State == "done" || strings.HasPrefix(nodes.ownerName(t, server, run.Job), other.Name+"/") {
			break
		}
	}
	owner.Continue()
	var job api.Job
	for job, err = range watcher.WatchJob(ctx, run.Job) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if job.State != "done" {
		t.Fatalf("the job ended as %+v", job)
	}
	census, err := watcher.Census(t.Context(), "patients")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range census.Columns[0].Versions {
		if v.State != "active" || v.Rows != rows {
			t.Errorf("census: %+v", v)
		}
	}
	other.OK(nil, "dataset", "verify", "patients", "--unthrottled")
	byNode := map[string]int{}
	for line := range strings.Lines(string(other.OK(nil, "audit", "export"))) {
		if strings.Contains(line, `"job":"`+run.Job) && strings.Contains(line, `"event_type":"reencryption"`) {
			for _, node := range nodes.All {
				if strings.Contains(line, `"node":"`+node.Name+`"`) {
					byNode[node.Name]++
				}
			}
		}
	}
	if byNode[owner.Name] != 0 || byNode[other.Name] == 0 {
		t.Errorf("events by node: %v; %s had lost the job before it could record a chunk", byNode, owner.Name)
	}
	nodes.wantSound()
}

// ownerName is who holds a job now: the node's name, a slash and a random part.
func (n *Nodes) ownerName(t *testing.T, server *pgtest.Server, job string) string {
	t.Helper()
	name, err := server.Text(t.Context(), n.URL, `SELECT owner FROM keyturn.jobs WHERE id = '`+job+`'`)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// owner waits until a job has one.
func (n *Nodes) owner(ctx context.Context, t *testing.T, server *pgtest.Server, job string) *Node {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		name := n.ownerName(t, server, job)
		for _, node := range n.All {
			if strings.HasPrefix(name, node.Name+"/") {
				return node
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nobody took job %s: %v", job, ctx.Err())
		}
	}
}
