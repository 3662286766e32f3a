package mysql_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/mariatest"
	"github.com/keyturn/keyturn/internal/reencrypt"
	"github.com/keyturn/keyturn/internal/reencrypt/connectortest"
)

// proxy stands between the connector and its server and cuts a connection once it has carried so many bytes from the
// client: in the middle of a statement, in front of a commit, or between a commit and its answer.
type proxy struct {
	listener net.Listener
	server   string
	mu       sync.Mutex // guards random and cuts
	random   *rand.Rand
	cuts     int
}

func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func startProxy(t *testing.T, server string, seed uint64) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: server, random: rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(c)
		}
	}()
	return p
}

// limit is how many bytes of a connection are let through: every second one lives.
func (p *proxy) limit() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.random.IntN(2) == 0 {
		return 1 << 40
	}
	return 3000 + p.random.Int64N(200_000)
}

func (p *proxy) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(client, server)
		client.Close()
	}()
	if _, err := io.CopyN(server, client, p.limit()); err == nil {
		p.mu.Lock()
		p.cuts++
		p.mu.Unlock()
	}
}

// finishThrough works on a table until it is done, however often its connections break.
func finishThrough(t *testing.T, db func() (reencrypt.Database, error), table string, keys *connectortest.KeySet, kind reencrypt.Kind) {
	t.Helper()
	var r connectortest.Run
	for t.Context().Err() == nil {
		done, err := attempt(t, db, table, keys, kind, &r)
		if done {
			return
		}
		if err != nil && fault.CodeOf(err) != api.CodeUnavailable && fault.CodeOf(err) != api.CodeBusy {
			t.Fatalf("%s: %v", kind, err)
		}
	}
}

func attempt(t *testing.T, dial func() (reencrypt.Database, error), table string, keys *connectortest.KeySet, kind reencrypt.Kind, r *connectortest.Run) (bool, error) {
	db, err := dial()
	if err != nil {
		return false, err
	}
	defer db.Close()
	w, err := connectortest.TryWork(t.Context(), db, table, map[string]*connectortest.KeySet{"v": keys}, kind)
	if err != nil {
		return false, err
	}
	w.Batch = 100
	s := r.State
	return w.Advance(t.Context(), &s, time.Now().Add(5*time.Second), r.Save)
}

const rowsOfT = "INSERT INTO t SELECT i, 'v' || i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i FROM n) AS s"

// whole checks that every row of t opens to what it was.
func whole(t *testing.T, d connectortest.Database, keys *connectortest.KeySet, version uint32) {
	t.Helper()
	rows := d.Rows(t, "SELECT id, v FROM t")
	for _, row := range rows {
		id := string(row[0])
		h, err := envelope.ParsePrefixText(string(row[1][:envelope.PrefixLen]))
		if err != nil || h.Version != version {
			t.Fatalf("row %s stands under %+v, %v", id, h, err)
		}
		if got := connectortest.Open(t, "t", []string{"id"}, []string{id}, "v", keys, row[1]); got != "v"+id {
			t.Fatalf("row %s holds %q", id, got)
		}
	}
	if len(rows) != 3000 {
		t.Fatalf("%d rows", len(rows))
	}
}

// TestCutConnections encrypts and re-encrypts a table over connections that break at any place.
func TestCutConnections(t *testing.T) {
	d := fresh(t)
	d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)", rowsOfT)
	p := startProxy(t, mariatest.Start(t).Address(), 13)
	u := mustParse(t, d.URL)
	u.Host = p.listener.Addr().String()
	dial := func() (reencrypt.Database, error) { return dialAs(t.Context(), u) }
	keys := connectortest.NewKeySet(envelope.SuiteStandard)
	finishThrough(t, dial, "t", keys, reencrypt.KindEncrypt)
	version := uint32(1)
	for ; p.count() < 5; version++ {
		keys.Rotate()
		finishThrough(t, dial, "t", keys, reencrypt.KindReencrypt)
	}
	whole(t, d, keys, version)
	t.Logf("%d connections cut while the table moved to version %d", p.count(), version)
}

// TestServerKilled kills the server over and over (SIGKILL) while a table is encrypted and re-encrypted, on a server that
// waits for the disk and on one that doesn't.
func TestServerKilled(t *testing.T) {
	for name, settings := range map[string]map[string]string{"durable": nil, "lazy": {"innodb-flush-log-at-trx-commit": "0"}} {
		t.Run(name, func(t *testing.T) {
			server := mariatest.Own(t, mariatest.Options{Settings: settings})
			d := on(t, server)
			d.Exec(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)", rowsOfT, "FLUSH TABLES t FOR EXPORT", "UNLOCK TABLES")
			u := mustParse(t, d.URL)
			keys := connectortest.NewKeySet(envelope.SuiteStandard)
			killed, over := make(chan int), make(chan struct{})
			go func() {
				random, n := rand.New(rand.NewPCG(4711, 0)), 0
				for {
					select {
					case <-over:
						killed <- n
						return
					case <-time.After(time.Duration(50+random.IntN(250)) * time.Millisecond): // the moment of a crash, not a wait for anything
					}
					if n < 4 {
						if err := server.Kill(context.Background()); err != nil {
							t.Errorf("killing: %v", err)
						}
						if err := server.Restart(context.Background()); err != nil {
							t.Errorf("restarting: %v", err)
						}
						n++
					}
				}
			}()
			dial := func() (reencrypt.Database, error) { return dialAs(t.Context(), u) }
			finishThrough(t, dial, "t", keys, reencrypt.KindEncrypt)
			keys.Rotate()
			finishThrough(t, dial, "t", keys, reencrypt.KindReencrypt)
			close(over)
			n := <-killed
			if n == 0 {
				t.Error("the server was never killed")
			}
			if err := server.Kill(t.Context()); err != nil { // what a run has ended with stays
				t.Fatal(err)
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			whole(t, d, keys, 2)
			t.Logf("killed %d times", n+1)
		})
	}
}

func dialAs(ctx context.Context, u *url.URL) (reencrypt.Database, error) {
	return driver.Open(ctx, reencrypt.NewDSN(u.String()), reencrypt.Session{})
}
