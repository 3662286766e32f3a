package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/authn/peer"
	"github.com/keyturn/keyturn/internal/fault"
)

// The limits of every listener. A connection that is slow with its header is closed by headerTime; one that is slow with
// its body by readTime; one that says nothing by idleTime; one of HTTP/2 that takes nothing at all by writeTime. How
// slowly a single answer may be taken is httpapi's business, because streams are answers too.
const (
	headerTime   = 5 * time.Second
	readTime     = 30 * time.Second
	idleTime     = 2 * time.Minute
	writeTime    = 30 * time.Second
	headerBytes  = 16 << 10
	h2Streams    = 100
	h2Frame      = 64 << 10
	graceTime    = 10 * time.Second // what Shutdown waits for running requests
	maxSocketLen = 107              // bytes of a unix socket's path: sun_path is 108 with its end
)

// transports is the table of the kinds of addresses.
var transports = map[string]func(*Server, address) (net.Listener, error){
	"https": (*Server).listenTLS,
	"http":  (*Server).listenPlain,
	"unix":  (*Server).listenUnix,
}

func (s *Server) listenPlain(a address) (net.Listener, error) {
	l, err := net.Listen("tcp", a.host)
	if err != nil {
		return nil, cantListen(a, err)
	}
	// The name may have come to mean another address than when the configuration was read.
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		_ = l.Close()
		return nil, fault.New(api.CodeInvalid, "listening at "+a.String()+": it is not a loopback address").WithField("listen").WithNext("use https://")
	}
	return limited(l), nil
}

func (s *Server) listenTLS(a address) (net.Listener, error) {
	l, err := net.Listen("tcp", a.host)
	if err != nil {
		return nil, cantListen(a, err)
	}
	return tls.NewListener(limited(l), s.tls), nil
}

// listenUnix makes the socket with mode 0600: under a umask, so that there is no moment in which it is open to others.
func (s *Server) listenUnix(a address) (net.Listener, error) {
	if len(a.path) > maxSocketLen {
		return nil, fault.Newf(api.CodeInvalid, "listening at a unix socket: its path is longer than %d bytes", maxSocketLen).WithField("listen")
	}
	if err := removeStale(a.path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", a.path)
	unix.Umask(old)
	if err != nil {
		return nil, cantListen(a, err)
	}
	return l, nil // not limited: only this user can connect, and authn/peer needs the bare connection
}

// removeStale removes the socket that a killed server left behind, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return fault.New(api.CodeConflict, "listening at a unix socket: something else is at its path").WithField("listen")
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fault.New(api.CodeConflict, "listening at a unix socket: another server answers there").WithField("listen")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(api.CodeUnavailable, err, "removing a socket that was left behind").WithField("listen")
	}
	return nil
}

func cantListen(a address, err error) error {
	return fault.Wrap(api.CodeUnavailable, err, "listening at "+a.String()).WithField("listen").
		WithNext("see what listens there already, or name another address")
}

// tlsConfig is that of the https listeners.
func tlsConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// httpServer is one http.Server for all listeners, so that one Shutdown ends them all.
func httpServer(h http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: h2Streams, MaxReadFrameSize: h2Frame, WriteByteTimeout: writeTime},
		ConnContext:       peer.ConnContext,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// maxConns bounds the connections of one listener: half of the files that this process may open, so that floods of
// connections leave the store its files. Who is over it waits in the kernel's queue.
func maxConns() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<14 {
		return 1 << 13
	}
	return max(16, int(limit.Cur/2))
}

// limitedListener accepts while fewer than cap(places) of its connections are open.
type limitedListener struct {
	net.Listener
	places chan struct{}
	closed context.Context
	close  context.CancelFunc
}

func limited(l net.Listener) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	return &limitedListener{l, make(chan struct{}, maxConns()), ctx, cancel}
}

// Accept waits for a place, then for a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close ends a waiting Accept too.
func (l *limitedListener) Close() error {
	l.close()
	return l.Listener.Close()
}

// placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
