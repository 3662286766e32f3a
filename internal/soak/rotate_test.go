package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// turnover is what TestCampaignRotateByItself puts through: three nodes on one PostgreSQL, a policy that says "every
// minute", clients on all nodes, a table that is moved after each rotation, and somebody who kills nodes.
type turnover struct {
	t     *testing.T
	nodes *Nodes
	rnd   *rand.Rand

	mu     sync.Mutex        // guards what follows
	sealed map[string]string // n: the ciphertext of "plain n"
	opened int
	failed int
}

// TestCampaignRotateByItself is the acceptance of rotation: at the end every ciphertext that was ever acknowledged opens, one
// version is active, the history is complete, the log verifies; and an emergency on the key ends with its rows moved, the
// incident closed and the evidence written. Ten versions with KEYTURN_SOAK, which takes as many minutes; two without.
func TestCampaignRotateByItself(t *testing.T) {
	beside(t)
	versions := 2
	if os.Getenv("KEYTURN_SOAK") != "" {
		versions = 10
	}
	seed := uint64(time.Now().UnixNano())
	server := pgtest.Start(t)
	c := &turnover{t: t, nodes: NewNodes(t, 3, NodesOptions{Server: server}), rnd: rand.New(rand.NewPCG(seed, 1)), sealed: map[string]string{}}
	c.nodes.Start()
	first := c.nodes.All[0]
	first.OK(nil, "key", "create", "phi", "--purpose", "phi")
	table := server.Database(t)
	if err := server.Exec(t.Context(), table, `CREATE TABLE patients (id bigint PRIMARY KEY, ssn text); INSERT INTO patients SELECT i, 'number ' || i FROM generate_series(1, 3000) i`); err != nil {
		t.Fatal(err)
	}
	first.OK([]byte(table), "dataset", "add", "patients", "--db-file", "-", "--table", "patients", "--column", "ssn=phi")
	first.OK(nil, "dataset", "encrypt", "patients", "--unthrottled")
	first.OK(nil, "policy", "set", "every-minute", "--key", "phi", "--schedule", "* * * * *", "--reencrypt", "yes", "--attempts", "20")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() { c.use(ctx, i) })
	}
	kills := c.killUntil(uint32(versions + 1))
	first.OK(nil, "policy", "set", "every-minute", "--schedule", "none")
	stop()
	clients.Wait()
	c.nodes.Start()
	c.settle()
	rotations := c.check()
	incident := c.emergency()
	fmt.Printf("campaign rotate-by-itself: seed %d, %d rotations over %d kills of nodes, %d ciphertexts acknowledged, %d openings, %d answers lost to kills; all open, history complete, log verifies; emergency %s closed\n",
		seed, rotations, kills, len(c.sealed), c.opened, c.failed, incident)
}

// use seals and opens through a node until ctx ends. An answer may fail because its node was killed, and for no other reason.
func (c *turnover) use(ctx context.Context, i int) {
	client := c.nodes.All[i%len(c.nodes.All)].Client(keyturn.WithTimeout(15 * time.Second))
	for turn := 0; ctx.Err() == nil; turn++ {
		n := fmt.Sprintf("%d-%d", i, turn)
		bound := map[string]string{"n": n}
		out, err := client.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("plain " + n), Context: bound})
		if c.note(ctx, err) {
			c.mu.Lock()
			c.sealed[n] = out.Ciphertext
			c.mu.Unlock()
			back, err := client.Decrypt(ctx, "phi", api.DecryptRequest{Ciphertext: out.Ciphertext, Context: bound})
			if c.note(ctx, err) && string(back.Plaintext) != "plain "+n {
				c.t.Errorf("%s opens as something else", n)
			}
		}
		rest(ctx, 20*time.Millisecond)
	}
}

func (c *turnover) note(ctx context.Context, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch keyturn.CodeOf(err) {
	case "":
		c.opened++
		return true
	case api.CodeUnavailable, api.CodeBusy, api.CodeCancelled:
		c.failed++
	default:
		if ctx.Err() == nil {
			c.t.Errorf("an answer that no kill explains: %v", err)
		}
	}
	return false
}

// killUntil kills and restarts random nodes until a version of the key is active.
func (c *turnover) killUntil(version uint32) (kills int) {
	deadline := time.Now().Add(time.Duration(version+5) * time.Minute)
	for time.Now().Before(deadline) {
		rest(c.t.Context(), time.Duration(4+c.rnd.IntN(8))*time.Second)
		victim := c.nodes.All[c.rnd.IntN(len(c.nodes.All))]
		victim.Kill()
		kills++
		rest(c.t.Context(), time.Duration(c.rnd.IntN(3000))*time.Millisecond)
		victim.Start()
		k, err := victim.Client().Key(c.t.Context(), "phi")
		if err == nil && len(k.Versions) >= int(version) {
			return kills
		}
	}
	c.t.Fatalf("version %d was not reached within its time", version)
	return kills
}

// settle waits until nothing is left to do by itself: no job is unfinished.
func (c *turnover) settle() {
	c.t.Helper()
	client, ctx := c.nodes.All[0].Client(), within(c.t)
	for _, state := range []string{"queued", "running", "queued", "running"} {
		list, err := client.Jobs(ctx, keyturn.JobFilter{State: state})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, j := range list.Jobs {
			for _, err := range client.WatchJob(ctx, j.ID) {
				if err != nil {
					c.t.Fatalf("waiting for %s, job %s, which was %s after %d attempts (%s): %v", j.Kind, j.ID, j.State, j.Attempts, j.Error, err)
				}
			}
		}
	}
}

// check holds the store against what was acknowledged.
func (c *turnover) check() int {
	c.t.Helper()
	client := c.nodes.All[1].Client()
	for n, text := range c.sealed {
		out, err := client.Decrypt(c.t.Context(), "phi", api.DecryptRequest{Ciphertext: text, Context: map[string]string{"n": n}})
		if err != nil || string(out.Plaintext) != "plain "+n {
			c.t.Fatalf("%s was acknowledged and doesn't open: %v", n, err)
		}
	}
	k, err := client.Key(c.t.Context(), "phi")
	if err != nil {
		c.t.Fatal(err)
	}
	active := 0
	for i, v := range k.Versions {
		if v.Version != uint32(i)+1 {
			c.t.Errorf("version %d at place %d", v.Version, i)
		}
		if v.State == "active" {
			active++
		}
	}
	history, err := client.RotationHistory(c.t.Context(), "phi", "", 1000)
	if err != nil || active != 1 || len(history.Rotations) != len(k.Versions)-1 {
		c.t.Fatalf("%d active versions of %d, %d rotations in the history, %v", active, len(k.Versions), len(history.Rotations), err)
	}
	for i, r := range history.Rotations {
		want := uint32(len(k.Versions) - i)
		if r.NewVersion != want || r.OldVersion != want-1 || r.SelfCheck != "ok" || r.Reason != "scheduled_rotation" {
			c.t.Errorf("%+v", r)
		}
	}
	census, err := client.Census(c.t.Context(), "patients")
	if err != nil {
		c.t.Fatal(err)
	}
	if v := census.Columns[0].Versions; len(v) != 1 || v[0].Version != uint32(len(k.Versions)) || v[0].Rows != 3000 {
		c.t.Errorf("after the last rotation's re-encryption: %+v", v)
	}
	c.nodes.wantSound()
	return len(history.Rotations)
}

// emergency answers a compromise of the version that is active, and proves the retirement of the first one.
func (c *turnover) emergency() string {
	c.t.Helper()
	node := c.nodes.All[2]
	now := active(node.Keyturn)
	node.OK(nil, "key", "rotate", "phi", "--emergency", "--reason", "laptop stolen", "--compromised", fmt.Sprintf("phi:%d", now))
	var list api.IncidentList
	node.JSON(&list, "incident", "list")
	id := list.Incidents[0].ID
	c.settle()
	file := filepath.Join(c.t.TempDir(), "evidence.html")
	node.OK(nil, "incident", "report", id, "--out", file)
	node.OK(nil, "incident", "close", id, "--reason", "rows moved")
	if text, err := os.ReadFile(file); err != nil || len(text) < 1000 {
		c.t.Fatalf("the evidence: %d bytes, %v", len(text), err)
	}
	doc, err := node.Client().Retirement(c.t.Context(), "phi", 1)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		c.t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(node.Dir, "audit.pub"))
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := audit.ParseKey(string(public))
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := audit.VerifyRetirement(text, key)
	if err != nil || r.Followed == nil || len(r.Datasets) != 1 || r.Datasets[0].ZeroSince == nil {
		c.t.Fatalf("the retirement of version 1: %+v, %v", r, err)
	}
	c.nodes.wantSound()
	return id
}
