package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the reference of S2: one durable commit
)

// durableCommit is the median time in microseconds of one SQLite commit (WAL, synchronous=FULL) of a row as small as an audit segment.
func durableCommit(path string, span time.Duration) (float64, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE s (n INTEGER PRIMARY KEY, lines BLOB)`); err != nil {
		return 0, err
	}
	stmt, err := db.Prepare(`INSERT INTO s (lines) VALUES ($1)`)
	if err != nil {
		return 0, err
	}
	defer stmt.Close()
	line := make([]byte, 400)
	var times []float64
	for start := time.Now(); time.Since(start) < span/2; {
		t := time.Now()
		if _, err := stmt.Exec(line); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(t).Microseconds()))
	}
	return median(times), nil
}

// fill creates keys key-000000 … over the server's API until there are n.
func (e *env) fill(p *process, token string, n int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				body := fmt.Sprintf(`{"name":"key-%06d"}`, i)
				req, err := http.NewRequest(http.MethodPost, "http://"+p.addr+"/v1/keys", strings.NewReader(body))
				if err != nil {
					errs <- err
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set("Content-Type", "application/json")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					errs <- err
					return
				}
				resp.Body.Close()
				if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusConflict {
					errs <- fmt.Errorf("creating a key: %s", resp.Status)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// filled gives a data directory with n keys more than "phi", and an application's token on it.
func (e *env) filled(name string, n int) (dir, token string, err error) {
	p, token, err := e.serveKeyturn(name)
	if err != nil {
		return "", "", err
	}
	defer p.stop()
	dir = filepath.Join(e.dir, name)
	out, err := e.keyturn(dir, nil, "principal", "create", "filler", "--role", "key-administrator", "--json")
	if err != nil {
		return "", "", err
	}
	var made struct{ Token string }
	if err := json.Unmarshal(out, &made); err != nil {
		return "", "", err
	}
	return dir, token, e.fill(p, made.Token, n)
}

func benchStart(e *env) ([]row, error) {
	dir, _, err := e.filled("start", e.growth)
	if err != nil {
		return nil, err
	}
	var ready []float64
	var rss float64
	for range e.pairs {
		start := time.Now()
		p, err := e.serveDir(dir)
		if err != nil {
			return nil, err
		}
		ready = append(ready, float64(time.Since(start).Milliseconds()))
		time.Sleep(time.Second) // let it idle before its memory is read
		rss, err = p.memory("VmRSS")
		p.stop()
		if err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(e.binary)
	if err != nil {
		return nil, err
	}
	size := float64(info.Size()) / (1 << 20)
	return []row{
		{"S8", fmt.Sprintf("start to ready, %d keys", e.growth), fmt.Sprintf("%.0f ms", median(ready)), "", "", spread(ready), "<= 150 ms", met(median(ready) <= 150)},
		{"S8", "idle memory", fmt.Sprintf("%.0f MB", rss), "", "", "", "<= 45 MB", met(rss <= 45)},
		{"S8", "binary", fmt.Sprintf("%.0f MB", size), "", "", "", "<= 50 MB", met(size <= 50)},
	}, nil
}

func benchGrowth(e *env) ([]row, error) {
	var small float64
	var rows []row
	for _, n := range []int{10, 1000, e.growth} {
		dir, token, err := e.filled(fmt.Sprintf("growth-%d", n), n)
		if err != nil {
			return rows, err
		}
		start := time.Now()
		p, err := e.serveDir(dir)
		if err != nil {
			return rows, err
		}
		ready := time.Since(start)
		var p99s []float64
		for range e.pairs {
			l, err := drive(p, p.addr, post("/v1/keys/phi/encrypt", token, encryptBody()), 16, e.span)
			if err != nil {
				p.stop()
				return rows, err
			}
			p99s = append(p99s, float64(l.quantile(0.99).Microseconds()))
		}
		p.stop()
		if small == 0 {
			small = median(p99s)
		}
		grown := median(p99s) / small
		rows = append(rows, row{"S9", fmt.Sprintf("encrypt p99 with %d keys (start %d ms)", n, ready.Milliseconds()), us(p99s), us([]float64{small}) + " with 10 keys",
			fmt.Sprintf("%.2f", grown), spread(p99s), "<= 1.5, start <= 1 s", met(grown <= 1.5 && ready <= time.Second)})
	}
	return rows, nil
}

// benchAudit makes a log of e.events single encryptions, exports it, and times the offline verification on one core.
func benchAudit(e *env) ([]row, error) {
	p, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.dir, "http")
	for made := 0; made < e.events; {
		l, err := drive(p, p.addr, post("/v1/keys/phi/encrypt", token, encryptBody()), 64, e.span)
		if err != nil {
			p.stop()
			return nil, err
		}
		made += l.calls
	}
	p.stop()
	file := filepath.Join(e.dir, "audit.jsonl")
	if _, err := e.keyturn(dir, nil, "audit", "export", "--out", file); err != nil {
		return nil, err
	}
	var rates []float64
	var events float64
	for range e.pairs {
		cmd := exec.Command(e.binary, "audit", "verify", file, "--key", filepath.Join(dir, "audit.pub"), "--json")
		cmd.Env = append(cleanEnv(), "GOMAXPROCS=1")
		start := time.Now()
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("audit verify: %w", err)
		}
		wall := time.Since(start)
		var v struct {
			OK     bool
			Events float64
		}
		if err := json.Unmarshal(out, &v); err != nil || !v.OK {
			return nil, fmt.Errorf("audit verify did not say ok: %v", err)
		}
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		events = v.Events
		rates = append(rates, v.Events/max(wall, cpu).Seconds())
	}
	start := time.Now()
	if _, err := e.keyturn(dir, nil, "audit", "query", "--resource", "key/none-such", "--since", "1h", "--json"); err != nil {
		return nil, err
	}
	query := time.Since(start)
	return []row{
		{"S10", fmt.Sprintf("audit verify, %.0f events, one core", events), perSecond(rates), "", "", spread(rates), ">= 800000/s", met(median(rates) >= 800_000)},
		{"S10", fmt.Sprintf("audit query by key and time over %.0f events, whole command", events), fmt.Sprintf("%d ms", query.Milliseconds()), "", "", "", "< 1 s at 10,000,000", "measured at this size"},
	}, nil
}
