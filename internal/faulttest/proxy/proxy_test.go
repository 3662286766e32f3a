package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := tryDial(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryDial(t *testing.T, p *Proxy) (net.Conn, error) {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, c.SetDeadline(time.Now().Add(30 * time.Second))
}

func newProxy(t *testing.T) *Proxy {
	t.Helper()
	p, err := New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func send(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	back := make([]byte, len(text))
	n, _ := io.ReadFull(c, back)
	return string(back[:n])
}

func TestCutsAtTheByte(t *testing.T) {
	p := newProxy(t)
	c := dial(t, p)
	if got := send(t, c, "whole"); got != "whole" {
		t.Fatalf("%q", got)
	}
	p.CutAfter(Down, 3)
	if got := send(t, c, "half"); len(got) > 3 { // a reset may also take what was on its way
		t.Errorf("%q came back past the cut", got)
	}
	if p.Cuts() != 1 {
		t.Errorf("%d cuts", p.Cuts())
	}
	if got := send(t, dial(t, p), "again"); got != "again" {
		t.Errorf("after the cut: %q", got)
	}
}

func TestResetHangAndRefuse(t *testing.T) {
	p := newProxy(t)
	c := dial(t, p)
	p.Hang()
	came := make(chan string)
	go func() { came <- send(t, c, "late") }()
	p.Latency(time.Millisecond)
	p.Go()
	if got := <-came; got != "late" {
		t.Errorf("%q after a hang", got)
	}
	p.Reset()
	if got := send(t, c, "x"); got != "" {
		t.Errorf("%q after a reset", got)
	}
	p.Refuse(true)
	// The reset may come before the client has noticed that it was connected.
	if c, err := tryDial(t, p); err == nil {
		if got := send(t, c, "x"); got != "" {
			t.Errorf("%q though refused", got)
		}
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %v", err)
	}
	p.Refuse(false)
	other := newProxy(t)
	p.Lead(other.Addr())
	if got := send(t, dial(t, p), "x"); !bytes.Equal([]byte(got), []byte("x")) {
		t.Errorf("%q by way of another", got)
	}
}
