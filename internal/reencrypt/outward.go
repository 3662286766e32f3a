package reencrypt

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// ErrOwnMachine says that a URL that came over the network leads back to keyturn's own machine, or to what only its neighbours
// reach. Drivers answer it as it is.
var ErrOwnMachine = fault.New(api.CodeInvalid, "connecting to the database: its host is keyturn's own machine or a link-local address, which can't be named over the network").
	WithField("db").WithNext(nameItHere)

// nameItHere is how whatever of the server's machine is named.
const nameItHere = "set the URL in the server's environment and name the variable, KEYTURN_DATASET_…, with --db-env, or run the command on the server's machine"

// overNetwork stands in front of a sealed URL that came over the network: no URL begins so. It is sealed with the URL, so that
// nobody takes it away, and needs no field in the record.
const overNetwork = "network "

// sealedText is what of a connection URL is sealed, and dsnOf the URL again.
func (d DSN) sealedText() string {
	if d.network {
		return overNetwork + d.Reveal()
	}
	return d.Reveal()
}

func dsnOf(sealed string) DSN {
	text, network := strings.CutPrefix(sealed, overNetwork)
	d := NewDSN(text)
	d.network = network
	return d
}

// open connects. Where a URL came over the network, each of the connections, now and later, is refused if it would lead to
// keyturn's own machine: databases trust that (trust and ident of PostgreSQL), and so do clouds that hand out credentials at a
// link-local address. What counts is the address itself, whatever name it was found under and whenever.
func open(ctx context.Context, driver Driver, dsn DSN, s Session) (Database, error) {
	if dsn.network {
		s.Dial = (&net.Dialer{Control: outward}).DialContext
	}
	return driver.Open(ctx, dsn, s)
}

// outward refuses addresses of this machine and of its link.
func outward(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	ip := to.Addr().Unmap()
	if err != nil || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return ErrOwnMachine // a socket's path is no address either
	}
	return nil
}
