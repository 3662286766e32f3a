package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// load is what one measurement of a server found. The generator is as small as it can be (one prepared request, raw
// HTTP/1.1 keep-alive, no net/http), the same for keyturn and for its reference, so that the ratio is the servers'.
type load struct {
	calls   int
	seconds float64
	cpu     time.Duration // the server process's user+system time meanwhile
	latency []time.Duration
}

func (l load) rate() float64 { return float64(l.calls) / l.seconds }

// cpuPerCall in microseconds.
func (l load) cpuPerCall() float64 { return float64(l.cpu.Microseconds()) / float64(l.calls) }

// quantile of the latencies, 0 <= q <= 1.
func (l load) quantile(q float64) time.Duration {
	if len(l.latency) == 0 {
		return 0
	}
	slices.Sort(l.latency)
	return l.latency[min(len(l.latency)-1, int(q*float64(len(l.latency))))]
}

// drive sends request over conns connections for span and counts the answers. Any answer but 200 is an error: a server
// that refuses quickly must not look fast.
func drive(p *process, addr string, request []byte, conns int, span time.Duration) (load, error) {
	warm := time.Now().Add(span / 5)
	if _, err := round(addr, request, conns, warm); err != nil {
		return load{}, err
	}
	before, err := p.cpu()
	if err != nil {
		return load{}, err
	}
	start := time.Now()
	latency, err := round(addr, request, conns, start.Add(span))
	if err != nil {
		return load{}, err
	}
	took := time.Since(start).Seconds()
	after, err := p.cpu()
	return load{calls: len(latency), seconds: took, cpu: after - before, latency: latency}, err
}

func round(addr string, request []byte, conns int, until time.Time) ([]time.Duration, error) {
	var (
		mu    sync.Mutex
		all   []time.Duration
		first error
		wg    sync.WaitGroup
	)
	for range conns {
		wg.Go(func() {
			mine, err := talk(addr, request, until)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if err != nil && first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	return all, first
}

func talk(addr string, request []byte, until time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 32<<10)
	latency := make([]time.Duration, 0, 1<<14)
	for now := time.Now(); now.Before(until); {
		if _, err := conn.Write(request); err != nil {
			return latency, err
		}
		if err := readAnswer(r); err != nil {
			return latency, err
		}
		end := time.Now()
		latency = append(latency, end.Sub(now))
		now = end
	}
	return latency, nil
}

// readAnswer reads one HTTP/1.1 answer with a Content-Length or chunked and refuses any status but 200.
func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		line := string(bytes.TrimSpace(status))
		rest, _ := io.ReadAll(io.LimitReader(r, 512))
		return fmt.Errorf("the server answered %q: %s", line, rest)
	}
	length, chunked := -1, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if v, ok := header(line, "content-length:"); ok {
			if length, err = strconv.Atoi(v); err != nil {
				return err
			}
		}
		if v, ok := header(line, "transfer-encoding:"); ok && v == "chunked" {
			chunked = true
		}
	}
	if chunked {
		return discardChunks(r)
	}
	_, err = r.Discard(length)
	return err
}

func header(line []byte, name string) (string, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return "", false
	}
	return string(bytes.TrimSpace(line[len(name):])), true
}

func discardChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// post is a prepared HTTP/1.1 request.
func post(path, token string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, token, len(body))
	b.Write(body)
	return b.Bytes()
}
