package proctest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// The ports of FreePort. They lie below those that Linux hands out by itself (net.ipv4.ip_local_port_range: from 32768).
const (
	firstPort = 12000
	ports     = 20000
)

// FreePort is a port of 127.0.0.1 at which nobody listens, for a server that must be told its port before it starts, or that
// comes back to it after a crash. Nobody else is given it by chance meanwhile, as a port that the kernel chose would be: to
// one of the many listeners that the tests beside this one open and close.
func FreePort() (int, error) {
	for {
		port := firstPort + rand.IntN(ports)
		l, err := net.Listen("tcp", Loopback(port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
}

// Loopback is the address of a port of 127.0.0.1.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
