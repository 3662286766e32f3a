//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"
)

// nonblock keeps opening a named pipe from waiting for its writer.
const nonblock = syscall.O_NONBLOCK

// ownedByUs: a file of another user's could be changed by that user at any time. Root's files are as good as ours.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
