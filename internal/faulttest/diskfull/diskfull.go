// Package diskfull gives tests a disk that is full when they say so: a small tmpfs of its own.
//
//	func TestMain(m *testing.M) { faulttest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		disk := diskfull.New(t, 4<<20, 0)
//		… use disk.Dir …
//		disk.Fill() // until the last byte
//		… everything that writes fails with ENOSPC …
//		disk.Free() // space returns
//	}
//
// Mounting needs root, or what faulttest.Main makes of other users.
package diskfull

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

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
		t.Fatalf("mounting a small tmpfs: %v (needs root, or a TestMain that calls faulttest.Main)", err)
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
