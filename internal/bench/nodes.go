package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/pgtest"
)

// connsPerNode is how many connections each node of S12 gets.
const connsPerNode = 32

// benchNodes is S12: one, two and three nodes on one PostgreSQL, every commit synchronous, all on this machine together
// with the load. It says how busy the machine was, because on a small one its cores end before the database does.
func benchNodes(e *env) ([]row, error) {
	ctx := context.Background()
	server, err := pgtest.New(ctx, pgtest.Options{})
	if err != nil {
		return nil, err
	}
	defer server.Close()
	nodes, token, err := e.nodesOn(ctx, server, 3)
	for _, p := range nodes {
		defer p.stop()
	}
	if err != nil {
		return nil, err
	}
	rates, one := map[int][]float64{}, 0.0
	busy, own := map[int][]float64{}, map[int][]float64{}
	for range e.pairs {
		for n := 1; n <= len(nodes); n++ {
			l, idle, err := driveAll(nodes[:n], post("/v1/keys/phi/encrypt", token, encryptBody()), e.span)
			if err != nil {
				return nil, err
			}
			rates[n], busy[n] = append(rates[n], l.rate()), append(busy[n], 100*(1-idle))
			own[n] = append(own[n], l.cpuPerCall())
		}
	}
	var rows []row
	for n := 1; n <= len(nodes); n++ {
		if n == 1 {
			one = median(rates[1])
		}
		ratios := make([]float64, len(rates[n]))
		for i := range ratios {
			ratios[i] = rates[n][i] / rates[1][i]
		}
		rows = append(rows, row{"S12", fmt.Sprintf("encrypt calls/s, %d nodes on one PostgreSQL, %d connections each", n, connsPerNode),
			perSecond(rates[n]), fmt.Sprintf("%.0f/s (one node)", one), ratio(ratios), spread(ratios),
			fmt.Sprintf("grows; machine %.0f %% busy, %s of a node per call", median(busy[n]), us(own[n])), "see target"})
	}
	return rows, nil
}

// nodesOn makes a store in PostgreSQL with one key and one principal, and serves it by n processes.
func (e *env) nodesOn(ctx context.Context, server *pgtest.Server, n int) (nodes []*process, token string, err error) {
	if err := server.Exec(ctx, server.URL("postgres"), "CREATE DATABASE bench"); err != nil {
		return nil, "", err
	}
	first := filepath.Join(e.dir, "node-0")
	for i := range n {
		dir := filepath.Join(e.dir, "node-"+strconv.Itoa(i))
		args := []string{"init", "--store", server.URL("bench")}
		if i > 0 {
			args = append(args, "--master-key", "file://"+filepath.Join(first, "master.key"))
		}
		if _, err := e.keyturn(dir, nil, args...); err != nil {
			return nodes, "", err
		}
	}
	if _, err := e.keyturn(first, nil, "key", "create", "phi", "--purpose", "phi"); err != nil {
		return nodes, "", err
	}
	out, err := e.keyturn(first, nil, "principal", "create", "bench", "--role", "application", "--json")
	if err != nil {
		return nodes, "", err
	}
	var made struct{ Token string }
	if err := json.Unmarshal(out, &made); err != nil {
		return nodes, "", err
	}
	for i := range n {
		p, err := e.serveDir(filepath.Join(e.dir, "node-"+strconv.Itoa(i)))
		if err != nil {
			return nodes, "", err
		}
		nodes = append(nodes, p)
	}
	return nodes, made.Token, nil
}

// driveAll drives all nodes at once, and says how much of the machine's time was idle meanwhile.
func driveAll(nodes []*process, request []byte, span time.Duration) (sum load, idle float64, err error) {
	before, err := machineTimes()
	if err != nil {
		return sum, 0, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, p := range nodes {
		all.Go(func() {
			l, failed := drive(p, p.addr, request, connsPerNode, span)
			mu.Lock()
			defer mu.Unlock()
			sum.calls, sum.cpu, sum.seconds, err = sum.calls+l.calls, sum.cpu+l.cpu, max(sum.seconds, l.seconds), errors.Join(err, failed)
		})
	}
	all.Wait()
	after, failed := machineTimes()
	return sum, float64(after.idle-before.idle) / float64(max(1, after.all-before.all)), errors.Join(err, failed)
}

// times are ticks of all cores since boot.
type times struct{ idle, all int64 }

// machineTimes reads the first line of /proc/stat (proc(5)): idle and iowait are its fourth and fifth numbers.
func machineTimes() (t times, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return t, err
		}
		if t.all += n; i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, nil
}
