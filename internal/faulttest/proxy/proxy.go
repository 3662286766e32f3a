// Package proxy is a wire that can be cut: a TCP proxy on loopback that passes bytes between clients and one server until a
// test disturbs it. It stands between keyturn's nodes and PostgreSQL.
//
//	p, err := proxy.New("127.0.0.1:5432")
//	… connect to p.Addr() …
//	p.Reset()                  // every connection is reset
//	p.CutAfter(proxy.Up, 700)  // the connection over which the 700th byte from now goes to the server is reset there
//	p.Hang(); …; p.Go()        // nothing passes meanwhile, and nothing is lost
//	p.Lead("127.0.0.1:5433")   // new connections go there
package proxy

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Direction says which way bytes go.
type Direction int

// The two ways.
const (
	Up   Direction = iota // to the server: what is cut there wasn't asked for, or only half
	Down                  // back to the client: what is cut there may have happened, and nobody says so
)

// Proxy is one listener. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener

	mu      sync.Mutex // guards what follows
	target  string
	links   map[*link]bool
	left    [2]int64 // bytes until the cut; 0 = none is set
	latency time.Duration
	gate    chan struct{} // closed while bytes may pass
	refuse  bool
	cuts    int

	running sync.WaitGroup
}

// link is one connection through the proxy.
type link struct{ client, server *net.TCPConn }

// New listens on a free port of 127.0.0.1; new connections go to target.
func New(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	p := &Proxy{listener: l, target: target, links: map[*link]bool{}, gate: open}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Lead sends new connections elsewhere; those that are open stay.
func (p *Proxy) Lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Refuse resets new connections at once, or stops doing so.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Latency delays every piece of data by d, each way.
func (p *Proxy) Latency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Hang lets nothing pass until Go.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// Go ends a Hang.
func (p *Proxy) Go() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// CutAfter resets the connection over which the n-th byte from now goes, after it has gone; 0 takes a cut back that is still to come.
func (p *Proxy) CutAfter(d Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left[d] = n
}

// Reset resets every connection, as when a switch forgets them.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		p.cuts++
		l.reset()
	}
}

// Cuts is how many connections have been reset so far.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Close ends the proxy and every connection, and returns when all is over.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.Go()
	p.Reset()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.running.Go(func() { p.join(c.(*net.TCPConn)) })
		}
	}
}

// join connects a client with the server and passes bytes until either end is gone.
func (p *Proxy) join(client *net.TCPConn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	l := &link{client: client}
	if refuse {
		l.reset()
		return
	}
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		l.reset()
		return
	}
	l.server = server.(*net.TCPConn)
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pass(l, Up, l.client, l.server) })
	both.Go(func() { p.pass(l, Down, l.server, l.client) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pass copies one way until something ends, and then ends the whole connection.
func (p *Proxy) pass(l *link, d Direction, from, to *net.TCPConn) {
	defer func() { from.Close(); to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		keep, cut := p.allow(d, n)
		if _, err := to.Write(buf[:keep]); err != nil {
			return
		}
		if cut {
			l.reset()
			return
		}
	}
}

// allow waits as long as data must wait, and says how many of n bytes pass and whether the connection is cut after them.
func (p *Proxy) allow(d Direction, n int) (keep int, cut bool) {
	p.mu.Lock()
	gate, latency := p.gate, p.latency
	p.mu.Unlock()
	if latency > 0 {
		time.Sleep(latency) // this is the latency, not a wait for anything
	}
	<-gate
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left[d] == 0 {
		return n, false
	}
	if int64(n) < p.left[d] {
		p.left[d] -= int64(n)
		return n, false
	}
	keep, p.left[d] = int(p.left[d]), 0
	p.cuts++
	return keep, true
}

// reset closes both ends with a reset: what was sent and not read yet is lost.
func (l *link) reset() {
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c != nil {
			_ = c.SetLinger(0) // closed already: as good
			c.Close()
		}
	}
}
