package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/faulttest/proxy"
	"github.com/keyturn/keyturn/internal/pgtest"
)

// wired is several nodes, each with a wire of its own to a PostgreSQL server that the test may kill.
type wired struct {
	*Nodes
	server *pgtest.Server
	wires  []*proxy.Proxy
}

func newWired(t *testing.T, n int, server *pgtest.Server) *wired {
	t.Helper()
	w := &wired{server: server}
	w.Nodes = NewNodes(t, n, NodesOptions{Server: server, Route: func(_ int, text string) string {
		p, err := proxy.New(server.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		w.wires = append(w.wires, p)
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = p.Addr()
		return u.String()
	}})
	return w
}

// load is clients that seal and rotate through all nodes and keep a journal of what was acknowledged.
type load struct {
	t    *testing.T
	stop context.CancelFunc
	all  sync.WaitGroup

	sent    atomic.Int64
	failed  atomic.Int64
	mu      sync.Mutex        // guards what follows
	sealed  map[string]string // n: the ciphertext of "plain n"
	rotated map[int]bool      // versions that an acknowledged rotation made
	asked   int               // rotations that were asked for
	last    time.Time         // of the last answer
	slowest time.Duration     // the longest time without any answer
}

func (n *Nodes) startLoad(t *testing.T, clients int) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{t: t, stop: stop, sealed: map[string]string{}, rotated: map[int]bool{}, last: time.Now()}
	for i := range clients {
		client := n.All[i%len(n.All)].Client(keyturn.WithTimeout(15 * time.Second))
		l.all.Go(func() {
			for turn := 0; ctx.Err() == nil; turn++ {
				l.one(client, turn%25 == 24)
				rest(ctx, 5*time.Millisecond) // the clients' own pace, so that the journal of a long campaign stays small
			}
		})
	}
	return l
}

func (l *load) one(client *keyturn.Client, rotate bool) {
	ctx, n := context.Background(), strconv.FormatInt(l.sent.Add(1), 10)
	if rotate {
		l.mu.Lock()
		l.asked++
		l.mu.Unlock()
		k, err := client.RotateKey(ctx, "phi", api.RotateKeyRequest{Reason: "load"})
		l.note(err, func() { l.rotated[len(k.Versions)] = true })
		return
	}
	out, err := client.Encrypt(ctx, "phi", api.EncryptRequest{Plaintext: []byte("plain " + n), Context: map[string]string{"n": n}})
	l.note(err, func() { l.sealed[n] = out.Ciphertext })
}

// note counts an answer, and keeps what it acknowledges.
func (l *load) note(err error, keep func()) {
	switch keyturn.CodeOf(err) {
	case "":
		l.mu.Lock()
		defer l.mu.Unlock()
		keep()
		l.slowest, l.last = max(l.slowest, time.Since(l.last)), time.Now()
	case api.CodeUnavailable, api.CodeBusy, api.CodeCancelled, api.CodeConflict:
		l.failed.Add(1)
	default:
		l.t.Errorf("an answer that no cut explains: %v", err)
	}
}

// answers is how many operations were acknowledged so far.
func (l *load) answers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sealed) + len(l.rotated)
}

// awaitAnswer returns when something was acknowledged after now: the service is back.
func (l *load) awaitAnswer() time.Duration {
	l.t.Helper()
	before, began := l.answers(), time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if l.answers() > before {
			return time.Since(began)
		}
		if time.Since(began) > 2*time.Minute {
			l.t.Fatal("no answer for two minutes")
		}
	}
	return 0
}

func (l *load) end() {
	l.stop()
	l.all.Wait()
}

// check compares the journal with the log and the keys: every acknowledged operation has exactly one event, no operation
// has two, and everything that was acknowledged opens (P1, P2, I1-I3, I6).
func (l *load) check(n *Nodes) {
	l.t.Helper()
	events := map[string]int{}
	rotations := 0
	for line := range strings.Lines(string(n.All[0].OK(nil, "audit", "export"))) {
		if !strings.Contains(line, `"success":true`) {
			continue
		}
		if _, rest, ok := strings.Cut(line, `"context":{"n":"`); ok {
			number, _, _ := strings.Cut(rest, `"`)
			events[number]++
		}
		if strings.Contains(line, `"action":"rotated"`) {
			rotations++
		}
	}
	for number, times := range events {
		if times > 1 {
			l.t.Errorf("operation %s was recorded %d times", number, times)
		}
	}
	client := n.All[0].Client()
	k, err := client.Key(l.t.Context(), "phi")
	if err != nil {
		l.t.Fatal(err)
	}
	wantOneActive(l.t, k)
	if len(k.Versions)-1 != rotations || rotations < len(l.rotated) || rotations > l.asked {
		l.t.Errorf("%d versions, %d recorded rotations, %d acknowledged, %d asked for", len(k.Versions), rotations, len(l.rotated), l.asked)
	}
	for version := range l.rotated {
		if version > len(k.Versions) {
			l.t.Errorf("version %d was acknowledged, and there are %d", version, len(k.Versions))
		}
	}
	var items []api.DecryptRequest
	var numbers []string
	for number, text := range l.sealed {
		if events[number] != 1 {
			l.t.Errorf("operation %s was answered and has %d events", number, events[number])
		}
		items, numbers = append(items, api.DecryptRequest{Ciphertext: text, Context: map[string]string{"n": number}}), append(numbers, number)
	}
	for first := 0; first < len(items); first += api.MaxBatchItems {
		end := min(first+api.MaxBatchItems, len(items))
		out, err := client.DecryptBatch(l.t.Context(), "phi", items[first:end])
		if err != nil {
			l.t.Fatal(err)
		}
		for i, item := range out {
			if item.Error != nil || string(item.Plaintext) != "plain "+numbers[first+i] {
				l.t.Errorf("operation %s was answered and doesn't open", numbers[first+i])
			}
		}
	}
}

// TestCampaignCuts: between three nodes and their PostgreSQL connections are reset, cut in the midst of statements and of
// answers, hung and delayed; sessions are terminated by the dozen, and the server crashes. Nothing acknowledged is lost,
// nothing is recorded twice, whatever the fate of a commit was; the service comes back by itself (FAULTS row 4).
func TestCampaignCuts(t *testing.T) {
	rng, seed := Seed(t)
	budget := NewBudget(t, 60)
	w := newWired(t, 3, pgtest.Own(t, pgtest.Options{TCP: true}))
	w.Start()
	if _, err := w.All[0].Client().CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	l := w.startLoad(t, 9)
	tried, crashes, longest := 0, 0, time.Duration(0)
	for ; budget.More(tried); tried++ {
		if w.disturb(t, rng, tried) {
			crashes++
			longest = max(longest, l.awaitAnswer())
		}
		l.awaitAnswer()
	}
	l.end()
	for _, wire := range w.wires { // what wasn't cut yet isn't to be cut while a node starts: that ends it, as it should
		wire.CutAfter(proxy.Up, 0)
		wire.CutAfter(proxy.Down, 0)
	}
	w.Start() // a node that lost its part of the log ended itself
	l.check(w.Nodes)
	w.wantSound()
	cuts := 0
	for _, wire := range w.wires {
		cuts += wire.Cuts()
	}
	Report("cuts", seed, "%d disturbances (%d server crashes), %d connections cut, %d answers, %d refusals: 0 lost, 0 twice; back %v after the slowest crash, longest silence %v",
		tried, crashes, cuts, l.answers(), l.failed.Load(), longest.Round(time.Millisecond), l.slowest.Round(time.Millisecond))
}

// disturb does one thing to the wires or the server; true when it crashed the server and started it again.
func (w *wired) disturb(t *testing.T, rng *rand.Rand, i int) (crashed bool) {
	t.Helper()
	ctx := context.Background()
	wire := w.wires[rng.IntN(len(w.wires))]
	if i%20 == 19 {
		if err := w.server.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.server.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		return true
	}
	switch rng.IntN(6) {
	case 0:
		wire.Reset()
	case 1:
		wire.CutAfter(proxy.Up, 1+rng.Int64N(4000))
	case 2:
		wire.CutAfter(proxy.Down, 1+rng.Int64N(600))
	case 3:
		wire.Hang()
		rest(ctx, time.Duration(rng.Int64N(int64(200*time.Millisecond))))
		if rng.IntN(2) == 0 {
			wire.Reset()
		}
		wire.Go()
	case 4:
		wire.Latency(time.Duration(rng.Int64N(int64(10 * time.Millisecond))))
		rest(ctx, 50*time.Millisecond)
		wire.Latency(0)
	case 5:
		err := w.server.Exec(ctx, w.server.URL("postgres"), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
		if err != nil {
			t.Fatal(err)
		}
	}
	return false
}

// TestCampaignFailover: the primary is lost and its standby promoted. With a synchronous standby nothing that was
// acknowledged is missing. With an asynchronous one that had fallen behind, every node notices: those that run find the end
// of their log gone, and a new start holds the store against the checkpoint file beside it (FAULTS row 4, P9).
func TestCampaignFailover(t *testing.T) {
	_, seed := Seed(t)
	budget := NewBudget(t, 1)
	rounds, answers := 0, 0
	var slowest time.Duration
	for ; budget.More(rounds); rounds++ {
		t.Run(fmt.Sprint("synchronous-", rounds), func(t *testing.T) {
			w, standby := newReplicated(t, true)
			l := w.startLoad(t, 6)
			l.awaitAnswer()
			rest(context.Background(), 500*time.Millisecond) // some load
			w.failOver(t, standby)
			slowest = max(slowest, l.awaitAnswer())
			l.end()
			w.Start()
			l.check(w.Nodes)
			w.wantSound()
			answers += l.answers()
		})
	}
	lost := 0
	t.Run("asynchronous", func(t *testing.T) { lost = loseTheEnd(t) })
	Report("failover", seed, "%d with a synchronous standby, %d answers: 0 lost, back after %v; with an asynchronous one %d acknowledged operations lost, noticed by every node",
		rounds, answers, slowest.Round(time.Millisecond), lost)
}

func newReplicated(t *testing.T, synchronous bool) (*wired, *pgtest.Server) {
	t.Helper()
	primary := pgtest.Own(t, pgtest.Options{TCP: true})
	standby, err := primary.Standby(t.Context(), synchronous)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Close() })
	w := newWired(t, 2, primary)
	w.Start()
	if _, err := w.All[0].Client().CreateKey(t.Context(), api.CreateKeyRequest{Name: "phi"}); err != nil {
		t.Fatal(err)
	}
	return w, standby
}

// failOver loses the primary for good, and makes the standby the one to which all wires lead.
func (w *wired) failOver(t *testing.T, standby *pgtest.Server) {
	t.Helper()
	if err := w.server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The standby was waiting for a standby of its own, as its primary was told to.
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := standby.Exec(t.Context(), standby.URL("postgres"), "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for _, wire := range w.wires {
		wire.Lead(standby.Address())
		wire.Reset()
	}
}

// loseTheEnd fails over to a standby that misses acknowledged operations, and says how many.
func loseTheEnd(t *testing.T) int {
	w, standby := newReplicated(t, false)
	client := w.All[0].Client()
	if err := standby.Unfollow(t.Context()); err != nil {
		t.Fatal(err)
	}
	const lost = 20
	for i := range lost {
		n := strconv.Itoa(i)
		if _, err := client.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte(n), Context: map[string]string{"n": n}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.failOver(t, standby)
	// The node that runs: its end of the log isn't there, so it answers nothing any more.
	var refused error
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(w.All[0].Log(), "did not write") {
		if _, refused = client.Encrypt(t.Context(), "phi", api.EncryptRequest{Plaintext: []byte("x")}); refused == nil || time.Now().After(deadline) {
			t.Fatalf("the node went on: %v\n%s", refused, w.All[0].Log())
		}
	}
	w.Stop()
	_, stderr, code := w.All[0].Run(nil, "key", "list")
	if code != 6 || !strings.Contains(stderr, "set back") {
		t.Fatalf("a new start on a store that misses what was signed: exit %d: %s", code, stderr)
	}
	// Whoever accepts the loss keeps the file as evidence and goes on.
	for _, node := range w.All {
		if err := os.Rename(node.Dir+"/checkpoints.log", node.Dir+"/checkpoints.lost"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	w.Start()
	w.wantSound()
	missing := 0
	export := string(w.All[0].OK(nil, "audit", "export"))
	for i := range lost {
		if !strings.Contains(export, fmt.Sprintf(`"context":{"n":"%d"}`, i)) {
			missing++
		}
	}
	if missing == 0 {
		t.Fatal("nothing was lost: the test tested nothing")
	}
	return missing
}
