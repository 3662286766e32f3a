package peer

import (
	"net"

	"golang.org/x/sys/unix"
)

// uidOf asks the kernel who connected. It is the user at the moment of connect(2), and can't be forged by him.
func uidOf(c net.Conn) (int, bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || asked != nil {
		return 0, false
	}
	return int(cred.Uid), true
}
