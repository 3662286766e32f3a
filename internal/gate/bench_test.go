package gate

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/store"
)

// BenchmarkUse is the doorway alone, on SQLite with its fsync: 1 and 64 callers at a time, several ways to gather.
func BenchmarkUse(b *testing.B) {
	for _, callers := range []int{1, 64} {
		for _, gather := range []time.Duration{-1, 0} {
			b.Run(fmt.Sprintf("callers=%d/gather=%v", callers, gather != -1), func(b *testing.B) {
				g := start(b, sqliteStore(b)(), Config{Gather: gather})
				b.ReportAllocs()
				b.ResetTimer()
				var next atomic.Int64
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						c := owner("r")
						for next.Add(1) <= int64(b.N) {
							if err := g.Use(context.Background(), c, encrypt, nothing); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/float64(g.shard.seq), "events/segment")
			})
		}
	}
}

// BenchmarkHTTP is SPEED.md's question in small: a handler that records, against one that doesn't, 64 keep-alive
// connections, client and server in one process.
func BenchmarkHTTP(b *testing.B) {
	for _, c := range []struct {
		name   string
		gather time.Duration
		null   bool
	}{{"null", 0, true}, {"at-once", -1, false}, {"gather", 0, false}} {
		b.Run(c.name, func(b *testing.B) {
			g := start(b, sqliteStore(b)(), Config{Gather: c.gather})
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if !c.null {
					if err := g.Use(context.Background(), owner("0f3a9c1e"), encrypt, nothing); err != nil {
						b.Error(err)
					}
				}
				_, _ = w.Write([]byte(`{"ciphertext":"x"}`))
			})
			url := serve(b, handler)
			before := cpu()
			load(b, url)
			if !c.null {
				b.ReportMetric(float64(b.N)/float64(g.shard.seq), "events/segment")
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/call") // client included
		})
	}
}

// cpu is what this process has used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // can't fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func serve(b *testing.B, h http.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// load sends b.N requests over 64 connections, with as little of a client as will do.
func load(b *testing.B, addr string) {
	request := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		all.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close() //nolint:errcheck // a test
			buf := make([]byte, 4096)
			for next.Add(1) <= int64(b.N) {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := c.Read(buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
}

// BenchmarkQuery looks for a rare key in a log of a million events (S10 asks for ten million in a second).
func BenchmarkQuery(b *testing.B) {
	const events, segment = 1_000_000, 64
	st := sqliteStore(b)()
	g := start(b, st, Config{})
	fill(b, g, events, segment)
	since := queryStart.Add(events / 10 * time.Millisecond)
	b.ResetTimer()
	for b.Loop() {
		n := 0
		f := Filter{Resource: "key/rare", Since: since, Until: since.Add(events / 2 * time.Millisecond)}
		if err := g.Query(context.Background(), f, func([]byte) error { n++; return nil }); err != nil || n == 0 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(events, "events")
}

// fill writes segments in large transactions; one event in fifty thousand is of key/rare.
func fill(b *testing.B, g *Gate, events, segment int) {
	ctx := context.Background()
	for at := 0; at < events; {
		err := g.st.Change(ctx, func(tx store.Tx) error {
			for range 2000 {
				c := &contents{}
				for range min(segment, events-at) {
					e := audit.Event{Time: queryStart.Add(time.Duration(at) * time.Millisecond), Type: audit.KeyUse, Action: "encrypt", Success: true,
						UserID: "app", Role: "application", Resource: fmt.Sprint("key/k", at%5), KeyVersion: 3, RequestID: "0f3a9c1e5b7d", SourceIP: "10.0.0.7"}
					if at%50_000 == 7 {
						e.Resource = "key/rare"
					}
					line := audit.AppendJSON(nil, &e)
					c.add(line, audit.LeafHash(line), audit.ResourceMask(e.Resource), e.Time)
					at++
				}
				if len(c.leaves) == 0 {
					return nil
				}
				a := g.shard.build(c)
				if err := tx.AppendSegment(ctx, &a.segment); err != nil {
					return err
				}
				g.advance(&a)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
