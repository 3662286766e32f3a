package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// env is the place of one bench run: the binary, a scratch folder, how long and how often.
type env struct {
	binary, dir          string
	pairs                int
	span                 time.Duration
	rows, events, growth int
}

func newEnv(binary string) (*env, error) {
	abs, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("no binary at %s: run make build first", binary)
	}
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	return &env{binary: abs, dir: dir}, err
}

func (e *env) close() { os.RemoveAll(e.dir) }

// keyturn runs one command on the data directory dir and gives its stdout; stdin may be nil.
func (e *env) keyturn(dir string, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command(e.binary, args...)
	cmd.Env = append(cleanEnv(), "KEYTURN_DIR="+dir)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("keyturn %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, stderr.String())
	}
	return out, nil
}

func cleanEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "KEYTURN_") {
			out = append(out, kv)
		}
	}
	return out
}

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	addr string
	log  *bytes.Buffer
}

func startProcess(addr string, extra []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), addr: addr, log: new(bytes.Buffer)}
	p.cmd.Env = append(cleanEnv(), extra...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// ready waits until a GET of path answers 200, at most 20 seconds.
func (p *process) ready(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("server at %s did not get ready: %s", p.addr, p.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) stop() {
	if p == nil || p.cmd.Process == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-done
	}
}

// cpu is the process's user and system time so far (proc(5): fields 14 and 15 in clock ticks of 10 ms).
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("reading /proc/…/stat: too few fields")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory reads a kB field of /proc/…/status, e.g. VmRSS or VmHWM, in MB.
func (p *process) memory(field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/…/status", field)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// serveKeyturn makes a store with one key and one application principal, and serves it on plain loopback HTTP.
func (e *env) serveKeyturn(name string) (p *process, token string, err error) {
	dir := filepath.Join(e.dir, name)
	if _, err := os.Stat(dir); err != nil {
		if _, err := e.keyturn(dir, nil, "init"); err != nil {
			return nil, "", err
		}
		if _, err := e.keyturn(dir, nil, "key", "create", "phi", "--purpose", "phi"); err != nil {
			return nil, "", err
		}
	}
	out, err := e.keyturn(dir, nil, "principal", "create", "bench"+strconv.FormatInt(time.Now().UnixNano(), 36), "--role", "application", "--json")
	if err != nil {
		return nil, "", err
	}
	var made struct{ Token string }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, "", err
	}
	p, err = e.serveDir(dir)
	return p, made.Token, err
}

func (e *env) serveDir(dir string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(addr, []string{"KEYTURN_DIR=" + dir}, e.binary, "serve", "--listen", "http://"+addr)
	if err != nil {
		return nil, err
	}
	if err := p.ready("/readyz"); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}
