package server

import (
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// dataHome is where users' data lies below the home directory: the XDG default, or what macOS has for it.
var dataHome = map[bool]string{true: "Library/Application Support", false: ".local/share"}[runtime.GOOS == "darwin"]

// owned says whether a file belongs to the user that this process runs as. Root may open anybody's directory.
func owned(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || os.Geteuid() == 0)
}

// ownedAs says whether a file belongs to the user that this process runs as, or to the owner of the directory it is for:
// those are two when root serves somebody's data directory.
func ownedAs(info, dir fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	d, known := dir.Sys().(*syscall.Stat_t)
	return ok && known && (int(st.Uid) == os.Geteuid() || st.Uid == d.Uid)
}
