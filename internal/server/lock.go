package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// lockWait is how long a command waits for the one that holds the directory, before it says who that is.
const lockWait = 5 * time.Second

// dirLock is the lock on a data directory. The kernel lets go of it when the process ends, however it ends, so a stale
// lock can't exist; the file's text is only for people.
type dirLock struct{ file *os.File }

// lockDir takes the lock, waiting up to wait for another holder. command is what the next one is told. The error has code
// busy and names the holder.
func lockDir(ctx context.Context, dir, command string, wait time.Duration) (*dirLock, error) {
	path := filepath.Join(dir, LockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "opening the lock of the data directory").WithField("dir")
	}
	if err := waitFor(ctx, f, wait); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, held(f)
		}
		return nil, fault.Wrap("", err, "locking the data directory").WithField("dir")
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(holder(command)), 0) // for people; the lock itself is held already
	}
	return &dirLock{f}, nil
}

// waitFor tries every 25 ms. flock has no time limit of its own, and a blocked call could not be called off.
func waitFor(ctx context.Context, f *os.File, wait time.Duration) error {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return unix.EWOULDBLOCK
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func holder(command string) string { return fmt.Sprintf("%d %s\n", os.Getpid(), command) }

// held is the refusal that names who holds the directory.
func held(f *os.File) error {
	text := make([]byte, 256)
	n, _ := f.ReadAt(text, 0)
	pid, command, _ := strings.Cut(strings.TrimSpace(string(text[:n])), " ")
	who := "another process"
	if pid != "" {
		who = "process " + printable(pid) + " (" + printable(command) + ")"
	}
	return fault.New(api.CodeBusy, "opening the data directory: "+who+" holds it").WithField("dir").
		WithNext("wait until it ends; while a server runs on the directory, commands go through its socket by themselves")
}

// printable keeps a file that somebody else wrote from writing on the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// release lets go of the lock. The file stays: deleting it would let two processes hold "the" lock.
func (l *dirLock) release() {
	if l == nil {
		return
	}
	_ = l.file.Truncate(0)
	_ = l.file.Close() // closes the description that holds the lock
}
