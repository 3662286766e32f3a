//go:build !linux

package peer

import "net"

// uidOf knows nobody on this system: the socket's peer signs in with a token.
func uidOf(net.Conn) (int, bool) { return 0, false }
