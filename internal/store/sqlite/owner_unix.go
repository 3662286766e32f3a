//go:build unix

package sqlite

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedByUs says whether the file belongs to the user that this process acts as.
func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
