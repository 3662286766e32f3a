// Package diskfull gives tests a disk that is full when they say so: a small tmpfs of its own.
//
//	func TestMain(m *testing.M) { diskfull.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		disk := diskfull.New(t, 4<<20, 0)
//		… use disk.Dir …
//		disk.Fill() // until the last byte
//		… everything that writes fails with ENOSPC …
//		disk.Free() // space returns
//	}
//
// Mounting needs root. For other users Main runs the test binary again in a user and mount namespace of its own, where it
// is root over nothing but its mounts; that needs a kernel that lets users make namespaces.
package diskfull

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nested marks the run inside the namespace.
const nested = "KEYTURN_DISKFULL_NESTED"

// Main runs the tests where they may mount. It doesn't return.
func Main(m *testing.M) {
	if os.Geteuid() == 0 || os.Getenv(nested) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), nested+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintf(os.Stderr, "these tests mount a small tmpfs: run them as root, or allow user namespaces (%v)\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Disk is a mounted tmpfs.
type Disk struct {
	Dir string // its root, of mode 0700
	t   testing.TB
}

// New mounts a disk of so many bytes, and so many files and directories if inodes isn't 0. It goes with the test.
func New(t testing.TB, size, inodes int64) *Disk {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=0700,size=%d,nr_inodes=%d", size, inodes)); err != nil {
		t.Fatalf("mounting a small tmpfs: %v (needs root, or a TestMain that calls diskfull.Main)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return &Disk{Dir: dir, t: t}
}

// filler is the file that takes all the space.
const filler = "filler"

// Fill writes until nothing more goes in.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir, filler), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; { // smaller and smaller, to the last byte
		if _, err := f.Write(bytes.Repeat([]byte{'x'}, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

// Free gives the space back.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.Dir, filler)); err != nil {
		d.t.Fatal(err)
	}
}
