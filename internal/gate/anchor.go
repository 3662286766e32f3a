package gate

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
)

// anchorFile is the checkpoint file outside of the store: a line for each checkpoint, appended and fsynced. A crash may
// leave a last line without its end; it is cut away before the next one is written. Its owner is the checkpointer.
type anchorFile struct {
	path   string     // empty = no file
	key    *audit.Key // whose checkpoints it holds; set by open
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

// open opens or makes the file, and cuts a torn end away; but only once the file is known to be ours. A path that names
// somebody else's file by mistake is refused, and the file stays as it is.
func (a *anchorFile) open(key *audit.Key) error {
	if a.f != nil || a.path == "" {
		return nil
	}
	f, err := openPlain(a.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	if err := mustBeOurs(f, key); err != nil {
		_ = f.Close()
		return fault.Wrap("", err, "opening "+a.path).WithNext(elsewhere)
	}
	if f, err = thin(a.path, f); err != nil {
		return err
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
	a.f, a.size, a.key = f, size, key
	return nil
}

const elsewhere = "if the file belongs to another store, move it away; if it is no checkpoint file, name another one in audit.checkpointFile"

// openPlain opens a checkpoint file. Symbolic links are not followed, and whatever is no plain file is refused: the path
// may lie where others can write.
func openPlain(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "opening the checkpoint file").WithNext("see that " + path + " is a plain file, no symbolic link, and can be written")
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fault.New(api.CodeInvalid, "opening the checkpoint file: it is not a plain file").WithField("audit.checkpointFile").WithNext("name another one")
	}
	return f, nil
}

// mustBeOurs looks at the first line: a checkpoint of the key's log, or, where a crash tore the very first one, what may
// be the beginning of one.
func mustBeOurs(f *os.File, key *audit.Key) error {
	head, err := io.ReadAll(io.NewSectionReader(f, 0, audit.MaxLine))
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "reading the checkpoint file")
	}
	end := bytes.IndexByte(head, '\n')
	if end >= 0 {
		_, err := audit.ReadCheckpoints(bytes.NewReader(head[:end+1]), key)
		return err
	}
	begins := bytes.TrimSuffix(audit.AppendCheckpointLine(nil, ""), []byte(`"}`))
	n := min(len(head), len(begins))
	if len(head) == audit.MaxLine || !bytes.Equal(head[:n], begins[:n]) {
		return fault.New(api.CodeIntegrity, "reading the checkpoint file: line 1 is not a checkpoint")
	}
	return nil
}

// append writes a checkpoint and returns when it is on disk. A write that fails is taken back, so that the next one
// stands on a line of its own; after a failed fsync nothing is certain, and broken says so.
func (a *anchorFile) append(note string) error {
	if a.path == "" {
		return nil
	}
	if err := a.open(a.key); err != nil {
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
	if err := a.open(key); err != nil || a.f == nil {
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
		return audit.Checkpoint{}, fault.Wrap("", err, "reading the last checkpoint of "+a.path).WithNext(elsewhere)
	}
	return found[len(found)-1], nil
}

// all reads every checkpoint of the file.
func (a *anchorFile) all(key *audit.Key) ([]audit.Checkpoint, error) {
	if a.path == "" {
		return nil, nil
	}
	f, err := openPlain(a.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
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

// thin rewrites a file that has become large with fewer checkpoints, and gives the file to go on with. The new file is
// complete and on disk before it takes the old one's name: a crash leaves one or the other. The first line always stays.
func thin(path string, f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && info.Size() <= thinAbove {
		return f, nil
	}
	defer f.Close() //nolint:errcheck // only read
	old, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "reading the checkpoint file")
	}
	lines := bytes.SplitAfter(old, []byte("\n"))
	var out []byte
	for i, line := range lines {
		if i%thinEvery == 0 || i >= len(lines)-thinKeep {
			out = append(out, line...)
		}
	}
	if err := replaceFile(path, out); err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "thinning the checkpoint file")
	}
	return openPlain(path, os.O_RDWR)
}

func replaceFile(path string, content []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
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
