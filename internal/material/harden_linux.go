package material

import (
	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Harden closes the ways by which the memory of this process reaches a file or another process of the same user:
// PR_SET_DUMPABLE=0 (no core dump, no ptrace, /proc/self/mem owned by root) and RLIMIT_CORE=0. Call it once, first
// thing in main. Root can still read the memory of any process. On systems other than Linux it does nothing.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "forbidding core dumps (PR_SET_DUMPABLE)")
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "forbidding core dumps (RLIMIT_CORE)")
	}
	return nil
}
