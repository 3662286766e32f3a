package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// ReadCheckpoints reads a file of signed checkpoints, one behind the other, each in one of the forms in which keyturn
// gives them away: a line of AppendCheckpointLine (checkpoint files), the signed note itself (`audit checkpoint`), or one
// line of JSON with the note in its field "note" (`audit checkpoint --json`). All that counts is the note, which is signed.
//
// A last JSON line without a newline that isn't whole is what a power cut left of an append, and is passed over; anything
// else that is not a checkpoint of the key's log is fault integrity with the line's number.
func ReadCheckpoints(r io.Reader, key *Key) ([]Checkpoint, error) {
	k := keptReader{in: bufio.NewReaderSize(r, MaxLine), key: key}
	for {
		err := k.next()
		if errors.Is(err, io.EOF) {
			return k.found, nil
		}
		if err != nil {
			return k.found, err
		}
	}
}

// keptReader takes a file of checkpoints apart.
type keptReader struct {
	in    *bufio.Reader
	key   *Key
	line  int // of the line that was read last, from 1
	found []Checkpoint
}

// next reads one checkpoint; io.EOF at the end of the file.
func (k *keptReader) next() error {
	line, whole, err := k.readLine()
	if err != nil {
		return err
	}
	first := k.line
	signed, ok := parseCheckpointLine(line)
	switch {
	case ok:
	case bytes.HasPrefix(line, []byte("{")):
		var doc struct{ Note string }
		if ok = json.Unmarshal(line, &doc) == nil && doc.Note != ""; !ok && !whole {
			return io.EOF
		}
		signed = doc.Note
	case string(line) == k.key.Origin():
		signed, ok, err = k.readNote(line)
	}
	if err != nil {
		return err
	}
	if !ok {
		return fault.Newf(api.CodeIntegrity, "reading the checkpoint file: line %d is not a checkpoint", first)
	}
	c, err := ParseCheckpoint(signed, k.key)
	if err != nil {
		return fault.Wrapf(api.CodeIntegrity, err, "reading the checkpoint file: line %d", first)
	}
	k.found = append(k.found, c)
	return nil
}

// readNote reads the rest of a signed note that begins with line, up to its signature; not ok when there is none.
func (k *keptReader) readNote(line []byte) (signed string, ok bool, err error) {
	var b strings.Builder
	for b.Len() < MaxLine {
		b.Write(line)
		b.WriteByte('\n')
		if bytes.HasPrefix(line, []byte("— ")) {
			return b.String(), true, nil
		}
		if line, _, err = k.readLine(); errors.Is(err, io.EOF) {
			return "", false, nil
		} else if err != nil {
			return "", false, err
		}
	}
	return "", false, nil
}

// readLine reads a line without its newline, and says whether it had one. The line is good until the next call.
func (k *keptReader) readLine() (line []byte, whole bool, err error) {
	line, err = k.in.ReadSlice('\n')
	k.line++
	switch {
	case err == nil:
		return line[:len(line)-1], true, nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, true, fault.Newf(api.CodeIntegrity, "reading the checkpoint file: line %d is not a checkpoint", k.line)
	case !errors.Is(err, io.EOF):
		return nil, false, fault.Wrap(api.CodeUnavailable, err, "reading the checkpoint file")
	case len(line) == 0:
		return nil, false, io.EOF
	}
	return line, false, nil
}
