package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/pgtest"
	"github.com/keyturn/keyturn/internal/proctest"
)

// NodesOptions say how several nodes are set up. The zero value is right where a test has no reason to differ.
type NodesOptions struct {
	// Server is the PostgreSQL server of the store; nil = that of this test process (pgtest.Start), in a database of its own.
	Server *pgtest.Server
	// URL is the store's address; empty = a fresh database of Server. Route may give each node another way to it, such as
	// through a proxy; nil = the address itself.
	URL   string
	Route func(node int, url string) string
	// Env is further environment of every node, as in "KEYTURN_JOBS__CONCURRENCY=1".
	Env []string
}

// Nodes are real `keyturn serve` processes on one PostgreSQL, each with a data directory of its own. The first has made the
// store, the others joined it; all share the first one's master key. They are ended with the test.
//
//	nodes := soak.NewNodes(t, 3, soak.NodesOptions{})
//	nodes.Start()                      // all of them, ready to answer
//	c := nodes.All[1].Client()         // the SDK, over the node's socket, as the local administrator
//	nodes.All[1].Pause(); …; nodes.All[1].Continue()
//	nodes.All[2].Kill(); nodes.All[2].Start()
//	nodes.All[0].OK(nil, "audit", "verify")   // any command, on that node's directory
type Nodes struct {
	tb  testing.TB
	URL string
	All []*Node
}

// Node is one of them. Its methods belong to one goroutine at a time, the clients that it gives to any.
type Node struct {
	*Keyturn
	Name   string
	Socket string // where it listens: unix:///…

	cmd    *exec.Cmd           // nil while it doesn't run
	exited chan struct{}       // closed when the process has ended
	ending error               // how it ended; to be read once exited is closed
	as     *syscall.Credential // whom it runs as; nil = the test's user
	paused bool
	log    string // path
}

// NewNodes initialises so many nodes; nothing runs yet.
func NewNodes(tb testing.TB, n int, o NodesOptions) *Nodes {
	tb.Helper()
	if o.URL == "" {
		if o.Server == nil {
			o.Server = pgtest.Start(tb)
		}
		o.URL = o.Server.Database(tb)
	}
	base, err := os.MkdirTemp("", "ktn") // short: a socket's path has 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(base) })
	all := &Nodes{tb: tb, URL: o.URL}
	for i := range n {
		dir := filepath.Join(base, fmt.Sprint(i))
		name := fmt.Sprintf("node-%d", i)
		node := (&Keyturn{tb: tb, path: Binary(tb), Dir: dir, Env: append([]string{"KEYTURN_NODE=" + name}, o.Env...)}).node(name)
		url := o.URL
		if o.Route != nil {
			url = o.Route(i, url)
		}
		args := []string{"init", "--store", url}
		if i > 0 {
			args = append(args, "--master-key", "file://"+filepath.Join(all.All[0].Dir, "master.key"))
		}
		node.OK(nil, args...)
		all.All = append(all.All, node)
	}
	tb.Cleanup(all.Stop)
	return all
}

// Serve starts `keyturn serve` on a data directory. It is ended with the test.
func Serve(k *Keyturn) *Node {
	k.tb.Helper()
	node := k.node("keyturn")
	k.tb.Cleanup(node.Stop)
	node.Start()
	return node
}

// node is a server on the data directory, listening at the directory's own socket; it isn't started.
func (k *Keyturn) node(name string) *Node {
	return &Node{Keyturn: k, Name: name, Socket: "unix://" + filepath.Join(k.Dir, "keyturn.sock"), log: k.Dir + ".log"}
}

// Start starts every node that doesn't run, and returns when all of them answer. One that was about to end by itself, as who lost
// its part of the log does, is started anew.
func (n *Nodes) Start() {
	n.tb.Helper()
	var ran []*Node
	for _, node := range n.All {
		if node.Running() {
			ran = append(ran, node)
			continue
		}
		node.spawn()
	}
	for _, node := range ran {
		if !node.ready() {
			node.spawn()
		}
	}
	for _, node := range n.All {
		node.await()
	}
}

// Stop ends every node in good order, paused ones too.
func (n *Nodes) Stop() {
	for _, node := range n.All {
		node.Stop()
	}
}

// Start starts the node and returns when it answers.
func (n *Node) Start() {
	n.tb.Helper()
	n.spawn()
	n.await()
}

func (n *Node) spawn() {
	n.tb.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.tb.Fatal(err)
	}
	defer log.Close()
	cmd := n.Command(context.Background(), "serve", "--listen", n.Socket)
	cmd.Stdout, cmd.Stderr = log, log
	if n.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: n.as}
	}
	if err := cmd.Start(); err != nil {
		n.tb.Fatalf("starting %s: %v", n.Name, err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited, n.paused = cmd, exited, false
	go func() {
		defer close(exited)
		n.ending = cmd.Wait()
	}()
}

// await returns when the node is ready.
func (n *Node) await() {
	n.tb.Helper()
	if !n.ready() {
		n.tb.Fatalf("%s ended while it started:\n%s", n.Name, n.Log())
	}
}

// ready waits until the node answers GET /healthz, which is when it is through with starting; false when it has ended instead. That
// its socket takes a connection says less: a node listens before, and one whose database goes away while it starts ends.
func (n *Node) ready() bool {
	n.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), proctest.Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !n.answers(ctx) {
		select {
		case <-tick.C:
		case <-n.exited:
			return false
		case <-ctx.Done():
			n.tb.Fatalf("%s doesn't answer after %v:\n%s", n.Name, proctest.Patience, n.Log())
		}
	}
	return true
}

// answers says whether the node answers a request that nobody needs a right for.
func (n *Node) answers(ctx context.Context) bool {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.Socket[len("unix://"):])
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/healthz", nil)
	if err != nil {
		n.tb.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Kill ends the node as kill -9 does.
func (n *Node) Kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		<-n.exited
		n.cmd = nil
	}
}

// Stop ends it in good order, and fails the test when it can't be ended like that.
func (n *Node) Stop() {
	n.tb.Helper()
	if n.cmd == nil {
		return
	}
	if n.paused {
		n.Continue()
	}
	if err := proctest.Tell(n.cmd.Process, n.exited); err != nil {
		n.tb.Errorf("%s: %v\n%s", n.Name, err, n.Log())
	}
	n.cmd = nil
}

// MustEnd is Stop of a server that must end well: with exit status 0.
func (n *Node) MustEnd() {
	n.tb.Helper()
	n.Stop()
	if n.ending != nil {
		n.tb.Fatalf("%s ended badly: %v\n%s", n.Name, n.ending, n.Log())
	}
}

// Pause stops the process where it stands (SIGSTOP): for the others it is as good as gone, and it doesn't know.
func (n *Node) Pause() { n.signal(syscall.SIGSTOP, true) }

// Continue lets a paused process go on (SIGCONT).
func (n *Node) Continue() { n.signal(syscall.SIGCONT, false) }

func (n *Node) signal(sig syscall.Signal, paused bool) {
	n.tb.Helper()
	if n.cmd == nil {
		n.tb.Fatalf("%s doesn't run", n.Name)
	}
	if err := n.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.tb.Fatal(err)
	}
	n.paused = paused
}

// Running says whether the process is there, paused or not.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// Client is the SDK on this node, as the local administrator unless an option says otherwise. It never repeats a call by
// itself, and is closed with the test.
func (n *Node) Client(opts ...keyturn.Option) *keyturn.Client {
	n.tb.Helper()
	c, err := keyturn.Dial(n.Socket, append([]keyturn.Option{keyturn.WithRetries(0)}, opts...)...)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { c.Close() })
	return c
}

// Log is what the node has printed, over all its lives.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
