package soak

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// within is the test's context with an end: what hasn't happened within five minutes doesn't, and whoever waits says so
// instead of leaving that to the end of the whole room.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// chown gives a tree to an unprivileged user.
func chown(dir string, uid int) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// openPath lets other users pass through the test's own temporary folders above dir (never dir itself).
func openPath(dir string) error {
	for p := filepath.Dir(dir); p != os.TempDir() && len(p) > 1; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}
