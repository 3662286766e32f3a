package gate

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// anchorFile is the checkpoint file outside of the store: a line for each checkpoint, appended and fsynced. A crash may
// leave a last line without its end; it is cut away before the next one is written. Its owner is the checkpointer.
type anchorFile struct {
	path   string // empty = no file
	f      handle
	size   int64 // up to the last whole line
	broken bool  // an fsync failed
}

// handle is what is needed of an *os.File; tests put one with a failing disk in its place.
type handle interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

const (
	// thinAbove is the size in bytes above which a file is thinned when it is opened. Every later checkpoint stands for the
	// earlier ones, which only narrow down where a change is.
	thinAbove = 8 << 20
	thinKeep  = 2048 // so many of the newest stay all
	thinEvery = 64   // of the others, one in so many stays
)

// open opens or makes the file, and cuts a torn end away.
func (a *anchorFile) open() error {
	if a.f != nil || a.path == "" {
		return nil
	}
	if err := thin(a.path); err != nil {
		return err
	}
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "opening the checkpoint file").WithNext("see that " + a.path + " can be written")
	}
	size, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = syncDir(filepath.Dir(a.path))
	}
	if err != nil {
		_ = f.Close()
		return fault.Wrap(api.CodeUnavailable, err, "opening the checkpoint file")
	}
	a.f, a.size = f, size
	return nil
}

// append writes a checkpoint and returns when it is on disk. A write that fails is taken back, so that the next one
// stands on a line of its own; after a failed fsync nothing is certain, and broken says so.
func (a *anchorFile) append(note string) error {
	if a.path == "" {
		return nil
	}
	if err := a.open(); err != nil {
		return err
	}
	line := append(audit.AppendCheckpointLine(nil, note), '\n')
	if _, err := a.f.WriteAt(line, a.size); err != nil {
		_ = a.f.Truncate(a.size) // if that fails too, the next write overwrites the rest, or open cuts it
		return fault.Wrap(api.CodeUnavailable, err, "writing the checkpoint file").WithNext("make room or repair the disk under " + a.path)
	}
	if err := a.f.Sync(); err != nil {
		a.broken = true
		return fault.Wrap(api.CodeUnavailable, err, "flushing the checkpoint file to disk").WithNext("check the disk under " + a.path + ", then start keyturn anew")
	}
	a.size += int64(len(line))
	return nil
}

// newest reads the last checkpoint of the file; the zero Checkpoint when there is none.
func (a *anchorFile) newest(key *audit.Key) (audit.Checkpoint, error) {
	if err := a.open(); err != nil || a.f == nil {
		return audit.Checkpoint{}, err
	}
	from := max(0, a.size-audit.MaxLine)
	tail, err := io.ReadAll(io.NewSectionReader(a.f, from, a.size-from))
	if err != nil {
		return audit.Checkpoint{}, fault.Wrap(api.CodeUnavailable, err, "reading the checkpoint file")
	}
	tail = bytes.TrimSuffix(tail, []byte("\n"))
	tail = append(tail[bytes.LastIndexByte(tail, '\n')+1:], '\n')
	if len(tail) == 1 {
		return audit.Checkpoint{}, nil
	}
	found, err := audit.ReadCheckpoints(bytes.NewReader(tail), key)
	if err != nil {
		return audit.Checkpoint{}, fault.Wrap("", err, "reading the last checkpoint of "+a.path).
			WithNext("if the file belongs to another store, move it away")
	}
	return found[len(found)-1], nil
}

// all reads every checkpoint of the file.
func (a *anchorFile) all(key *audit.Key) ([]audit.Checkpoint, error) {
	if a.path == "" {
		return nil, nil
	}
	f, err := os.Open(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "opening the checkpoint file")
	}
	defer f.Close() //nolint:errcheck // only read
	return audit.ReadCheckpoints(f, key)
}

func (a *anchorFile) close() error {
	if a.f == nil {
		return nil
	}
	err := a.f.Close()
	a.f = nil
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "closing the checkpoint file")
	}
	return nil
}

// wholeLines is the length of a file up to its last newline.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	from := max(0, info.Size()-audit.MaxLine)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	return from + int64(bytes.LastIndexByte(tail, '\n')) + 1, err
}

// thin rewrites a file that has become large with fewer checkpoints. The new file is complete and on disk before it takes
// the old one's name: a crash leaves one or the other.
func thin(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= thinAbove {
		return nil // not there, or small; opening it says what is wrong
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "reading the checkpoint file")
	}
	lines := bytes.SplitAfter(old, []byte("\n"))
	var out []byte
	for i, line := range lines {
		if i%thinEvery == 0 || i >= len(lines)-thinKeep {
			out = append(out, line...)
		}
	}
	if err := replaceFile(path, out); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "thinning the checkpoint file")
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // only synced
	return d.Sync()
}
