package powercut

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mounted is a disk that programs can use.
type Mounted struct{ server *fuse.Server }

// Mount shows the disk at an empty directory. It needs /dev/fuse, and root, a namespace in which this
// process is root (faulttest.Main), or the program fusermount3.
func Mount(d *Disk, dir string) (*Mounted, error) {
	server, err := fs.Mount(dir, &dirNode{d: d}, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "powercut", Name: "powercut"}})
	if err != nil {
		return nil, fmt.Errorf("mounting with FUSE at %s: %w", dir, err)
	}
	if err := keepFromChildren(); err != nil {
		return nil, errors.Join(err, server.Unmount())
	}
	return &Mounted{server}, nil
}

// keepFromChildren marks our descriptors of /dev/fuse as not to be inherited, which go-fuse leaves out. A worker that held
// one would keep the connection open after the death of this process, and hang for ever in a request to nobody.
func keepFromChildren() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil && target == "/dev/fuse" {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// Unmount takes the disk away. Every process that used it must have ended.
func (m *Mounted) Unmount() error { return m.server.Unmount() }

// dirNode is the one directory.
type dirNode struct {
	fs.Inode
	d *Disk
}

// fileNode is one file.
type fileNode struct {
	fs.Inode
	d *Disk
	f *file
}

var (
	_ fs.NodeLookuper  = (*dirNode)(nil)
	_ fs.NodeCreater   = (*dirNode)(nil)
	_ fs.NodeUnlinker  = (*dirNode)(nil)
	_ fs.NodeRenamer   = (*dirNode)(nil)
	_ fs.NodeReaddirer = (*dirNode)(nil)
	_ fs.NodeFsyncer   = (*dirNode)(nil)
	_ fs.NodeGetattrer = (*dirNode)(nil)
	_ fs.NodeSetattrer = (*dirNode)(nil)
	_ fs.NodeOpener    = (*fileNode)(nil)
	_ fs.NodeReader    = (*fileNode)(nil)
	_ fs.NodeWriter    = (*fileNode)(nil)
	_ fs.NodeFsyncer   = (*fileNode)(nil)
	_ fs.NodeGetattrer = (*fileNode)(nil)
	_ fs.NodeSetattrer = (*fileNode)(nil)
)

func (n *dirNode) child(ctx context.Context, f *file) *fs.Inode {
	return n.NewInode(ctx, &fileNode{d: n.d, f: f}, fs.StableAttr{Mode: fuse.S_IFREG, Ino: f.id})
}

func (n *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	f := n.d.names[name]
	if f == nil {
		return nil, syscall.ENOENT
	}
	f.attr(&out.Attr)
	return n.child(ctx, f), 0
}

func (n *dirNode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f, errno := n.d.create(name, mode)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	f.attr(&out.Attr)
	return n.child(ctx, f), nil, 0, 0
}

func (n *dirNode) Unlink(_ context.Context, name string) syscall.Errno { return n.d.unlink(name) }

func (n *dirNode) Rename(_ context.Context, from string, _ fs.InodeEmbedder, to string, _ uint32) syscall.Errno {
	return n.d.rename(from, to)
}

func (n *dirNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	var entries []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.d.names)) {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: fuse.S_IFREG, Ino: n.d.names[name].id})
	}
	return fs.NewListDirStream(entries), 0
}

func (n *dirNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return n.d.syncDir() }

func (n *dirNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	out.Mode, out.Nlink = syscall.S_IFDIR|n.d.dirMode, 2
	owner(&out.Attr)
	return 0
}

func (n *dirNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if mode, ok := in.GetMode(); ok {
		n.d.mu.Lock()
		n.d.dirMode = mode & 0o7777
		n.d.mu.Unlock()
	}
	return n.Getattr(ctx, h, out)
}

func (n *fileNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (n *fileNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	return fuse.ReadResultData(dest[:n.f.read(dest, off)]), 0
}

func (n *fileNode) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(p)), n.d.write(n.f, p, off)
}

func (n *fileNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return n.d.sync(n.f) }

func (n *fileNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.f.attr(&out.Attr)
	return 0
}

func (n *fileNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.d.truncate(n.f, int(size)); errno != 0 {
			return errno
		}
	}
	if mode, ok := in.GetMode(); ok {
		n.d.mu.Lock()
		n.f.mode = mode & 0o7777
		n.d.mu.Unlock()
	}
	return n.Getattr(ctx, h, out)
}

// attr is called with Disk.mu held.
func (f *file) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Size, out.Nlink = f.id, syscall.S_IFREG|f.mode, uint64(len(f.now)), 1
	out.Blksize, out.Blocks = pageSize, uint64(len(f.now)+sectorSize-1)/sectorSize
	owner(out)
}

// owner gives everything to the user of this process, who runs the program as well.
func owner(out *fuse.Attr) { out.Uid, out.Gid = uint32(syscall.Getuid()), uint32(syscall.Getgid()) }
