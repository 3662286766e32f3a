package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// nullHandler is the reference of S1 and S3: net/http, small JSON in and out, nothing else. Runs as its own process.
func nullHandler(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: bench null-handler ADDRESS")
	}
	type in struct {
		Plaintext []byte            `json:"plaintext"`
		Context   map[string]string `json:"context"`
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {})
	answer := []byte(`{"ciphertext":"` + strings.Repeat("A", 244) + `","version":1}`)
	mux.HandleFunc("POST /null", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		var v in
		if err != nil || json.Unmarshal(body, &v) != nil || len(v.Plaintext) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
	})
	srv := &http.Server{Addr: args[0], Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return srv.ListenAndServe()
}

func startNull() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(addr, nil, self, "null-handler", addr)
	if err != nil {
		return nil, err
	}
	return p, p.ready("/readyz")
}

const plaintext64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func encryptBody() []byte {
	return []byte(`{"plaintext":"` + base64.StdEncoding.EncodeToString([]byte(plaintext64)) + `","context":{"patient":"17"}}`)
}

// decryptBody seals one plaintext through the server and gives the request that opens it.
func decryptBody(p *process, token string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+p.addr+"/v1/keys/phi/encrypt", strings.NewReader(string(encryptBody())))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var sealed struct{ Ciphertext string }
	if err := json.NewDecoder(resp.Body).Decode(&sealed); err != nil {
		return nil, err
	}
	if sealed.Ciphertext == "" {
		return nil, fmt.Errorf("encrypt answered %s without a ciphertext", resp.Status)
	}
	return []byte(`{"ciphertext":"` + sealed.Ciphertext + `","context":{"patient":"17"}}`), nil
}

func benchHTTP(e *env) ([]row, error) {
	kt, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	defer kt.stop()
	null, err := startNull()
	if err != nil {
		return nil, err
	}
	defer null.stop()
	opening, err := decryptBody(kt, token)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, op := range []struct {
		name string
		body []byte
	}{{"encrypt", encryptBody()}, {"decrypt", opening}} {
		var rates, cpus, ours, theirs, ourCPU, theirCPU []float64
		for range e.pairs {
			a, err := drive(kt, kt.addr, post("/v1/keys/phi/"+op.name, token, op.body), 64, e.span)
			if err != nil {
				return rows, err
			}
			b, err := drive(null, null.addr, post("/null", token, encryptBody()), 64, e.span)
			if err != nil {
				return rows, err
			}
			ours, theirs = append(ours, a.rate()), append(theirs, b.rate())
			ourCPU, theirCPU = append(ourCPU, a.cpuPerCall()), append(theirCPU, b.cpuPerCall())
			rates, cpus = append(rates, a.rate()/b.rate()), append(cpus, a.cpuPerCall()/b.cpuPerCall())
		}
		rows = append(rows,
			row{"S1", op.name + " calls/s, 64 connections", perSecond(ours), perSecond(theirs), ratio(rates), spread(rates), ">= 0.70", met(median(rates) >= 0.70)},
			row{"S1", op.name + " server CPU per call", us(ourCPU), us(theirCPU), ratio(cpus), spread(cpus), "<= 1.6", met(median(cpus) <= 1.6)})
	}
	return rows, nil
}

// benchSingle times one connection beside one durable commit of the same pace: the audit's own work is one commit.
func benchSingle(e *env) ([]row, error) {
	kt, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	defer kt.stop()
	var over, p50s, commits []float64
	for range e.pairs {
		commit, err := durableCommit(filepath.Join(e.dir, fmt.Sprintf("commit-%d.db", time.Now().UnixNano())), e.span)
		if err != nil {
			return nil, err
		}
		l, err := drive(kt, kt.addr, post("/v1/keys/phi/encrypt", token, encryptBody()), 1, e.span)
		if err != nil {
			return nil, err
		}
		p50 := float64(l.quantile(0.5).Microseconds())
		p50s, commits, over = append(p50s, p50), append(commits, commit), append(over, p50-commit)
	}
	return []row{{"S2", "encrypt p50, 1 connection", us(p50s), us(commits) + " (one SQLite commit)", fmt.Sprintf("+%.0f us", median(over)),
		spread(over), "<= commit + 100 us", met(median(over) <= 100)}}, nil
}

func benchBatch(e *env) ([]row, error) {
	kt, token, err := e.serveKeyturn("http")
	if err != nil {
		return nil, err
	}
	defer kt.stop()
	null, err := startNull()
	if err != nil {
		return nil, err
	}
	defer null.stop()
	item := string(encryptBody())
	body := []byte(`{"items":[` + strings.Repeat(item+",", 99) + item + `]}`)
	var items, singles, ratios []float64
	for range e.pairs {
		a, err := drive(kt, kt.addr, post("/v1/keys/phi/encrypt/batch", token, body), 16, e.span)
		if err != nil {
			return nil, err
		}
		b, err := drive(null, null.addr, post("/null", token, encryptBody()), 16, e.span)
		if err != nil {
			return nil, err
		}
		items, singles = append(items, a.rate()*100), append(singles, b.rate())
		ratios = append(ratios, a.rate()*100/b.rate())
	}
	const want = 250_000.0 / 45_000
	return []row{{"S3", "encrypt items/s in batches of 100, 16 connections", perSecond(items), perSecond(singles) + " (null handler, single)", ratio(ratios),
		spread(ratios), fmt.Sprintf(">= %.2f", want), met(median(ratios) >= want)}}, nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func perSecond(v []float64) string { return fmt.Sprintf("%.0f/s", median(v)) }
func us(v []float64) string        { return fmt.Sprintf("%.1f us", median(v)) }
func ratio(v []float64) string     { return fmt.Sprintf("%.2f", median(v)) }
func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f-%.2f (%d)", slices.Min(v), slices.Max(v), len(v))
}
