//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// fakeInfo is a file of somebody's.
type fakeInfo struct {
	fs.FileInfo
	sys any
}

func (f fakeInfo) Sys() any { return f.sys }

func TestOwnedByUs(t *testing.T) {
	us := uint32(os.Geteuid())
	for name, c := range map[string]struct {
		sys  any
		want bool
	}{
		"ours": {&syscall.Stat_t{Uid: us}, true}, "root's": {&syscall.Stat_t{Uid: 0}, true},
		"another user's": {&syscall.Stat_t{Uid: us + 1}, false}, "nobody knows": {nil, false},
	} {
		if ownedByUs(fakeInfo{sys: c.sys}) != c.want {
			t.Errorf("%s: not %v", name, c.want)
		}
	}
}
