package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/kms"
)

// tombstoneFile is the list of destroyed versions in the data directory, one JSON document a line, append-only.
type tombstoneFile struct {
	path string
	mu   sync.Mutex // held while appending
}

// Append adds an entry and returns when it is on disk. A kill half way leaves a line without its end, which the next
// Append closes and List passes over: its destruction was not acknowledged, and is executed again.
func (t *tombstoneFile) Append(_ context.Context, entry kms.Tombstone) error {
	line, err := json.Marshal(entry)
	if err != nil {
		return fault.Wrap(api.CodeInternal, err, "writing a tombstone")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f, err := os.OpenFile(t.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "opening the list of destroyed versions")
	}
	if cut, cerr := endsHalfWay(f); cerr == nil && cut {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing the list of destroyed versions")
	}
	return nil
}

// endsHalfWay says whether the file's last byte is something else than the end of a line.
func endsHalfWay(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}

// List reads all entries. A line that isn't one, other than a last one without its end, is of code integrity: somebody
// edited the list, and a version could come back.
func (t *tombstoneFile) List(context.Context) ([]kms.Tombstone, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(api.CodeUnavailable, err, "opening the list of destroyed versions")
	}
	defer f.Close()
	var out []kms.Tombstone
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fault.Wrap(api.CodeUnavailable, err, "reading the list of destroyed versions")
		}
		var entry kms.Tombstone
		switch {
		case json.Unmarshal(line, &entry) == nil && entry.Version > 0:
			out = append(out, entry)
		case len(line) > 1 && line[0] == '{' && line[len(line)-2] != '}': // cut by a kill, closed by the next Append
		default:
			return nil, fault.New(api.CodeIntegrity, "reading the list of destroyed versions: it was changed").
				WithNext("restore tombstones.log from a copy; without it an old backup could bring destroyed versions back")
		}
	}
}
