package audit

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Exporter writes a verifiable export: every event a line, then for each shard a line with its outline, then a line
// with the signed checkpoint. It hashes what it writes and refuses to end an export that its checkpoint doesn't cover,
// so a damaged store can't hand out a file that looks whole. Not safe for concurrent use.
type Exporter struct {
	w      io.Writer
	shards map[int]*outline
	line   []byte
	count  uint64
}

// NewExporter writes to w, one Write a line: give it a buffered writer and flush that after Finish.
func NewExporter(w io.Writer) *Exporter {
	return &Exporter{w: w, shards: map[int]*outline{}}
}

// Event writes one stored line. The indexes of each shard must come dense from 0; shards may take turns.
func (x *Exporter) Event(line []byte, shard int, index uint64) error {
	o := x.shards[shard]
	if o == nil {
		o = &outline{}
		x.shards[shard] = o
	}
	if index != o.tree.size || len(line) < 2 {
		return fault.Newf(api.CodeIntegrity, "exporting the audit log: event %d of shard %d is missing or empty", o.tree.size, shard)
	}
	x.count++
	o.append(LeafHash(line), x.count)
	x.line = append(AppendExport(x.line[:0], line, shard, index), '\n')
	return x.write()
}

// Finish writes the outlines and the checkpoint. Fault integrity when the events were not exactly those that it covers.
func (x *Exporter) Finish(c Checkpoint) error {
	for _, shard := range x.shardNumbers() {
		o := x.shards[shard]
		if head := c.Head(shard); head.Size != o.tree.size || head.Root != o.tree.Root() {
			return fault.Newf(api.CodeIntegrity, "exporting the audit log: the events of shard %d are not those that the checkpoint covers", shard).
				WithNext("run keyturn audit verify")
		}
		x.line = append(appendOutline(x.line[:0], shard, o), '\n')
		if err := x.write(); err != nil {
			return err
		}
	}
	if len(c.Shards) != len(x.shards) {
		return fault.New(api.CodeIntegrity, "exporting the audit log: the checkpoint covers shards of which no event was found").
			WithNext("run keyturn audit verify")
	}
	x.line = append(AppendCheckpointLine(x.line[:0], c.Note), '\n')
	return x.write()
}

func (x *Exporter) shardNumbers() []int {
	numbers := make([]int, 0, len(x.shards))
	for n := range x.shards {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

func (x *Exporter) write() error {
	if _, err := x.w.Write(x.line); err != nil {
		return fault.Wrap(api.CodeUnavailable, err, "writing the export of the audit log")
	}
	return nil
}

const (
	checkpointMark = `{"checkpoint":`
	outlineMark    = `{"outline":`
)

// AppendCheckpointLine appends the line, without newline, in which exports and checkpoint files carry a signed checkpoint.
func AppendCheckpointLine(dst []byte, signed string) []byte {
	return append(appendString(append(dst, checkpointMark...), signed), '}')
}

// parseCheckpointLine takes the signed note out of a line of exactly AppendCheckpointLine's spelling.
func parseCheckpointLine(line []byte) (string, bool) {
	var v struct{ Checkpoint string }
	if err := json.Unmarshal(line, &v); err != nil {
		return "", false
	}
	return v.Checkpoint, string(AppendCheckpointLine(nil, v.Checkpoint)) == string(line)
}

// exportedOutline is the outline of one shard as an export carries it.
type exportedOutline struct {
	Shard  int    `json:"shard"`
	Size   uint64 `json:"size"`
	Level  int    `json:"level"`
	Hashes string `json:"hashes"` // standard base64 of all hashes, one behind the other

	list []Hash
}

func appendOutline(dst []byte, shard int, o *outline) []byte {
	list := o.list()
	raw := make([]byte, 0, len(list)*HashSize)
	for i := range list {
		raw = append(raw, list[i][:]...)
	}
	return appendOutlineFields(dst, shard, o.tree.size, o.level, raw)
}

func appendOutlineFields(dst []byte, shard int, size uint64, level int, raw []byte) []byte {
	dst = append(append(dst, outlineMark...), `{"shard":`...)
	dst = strconv.AppendInt(dst, int64(shard), 10)
	dst = strconv.AppendUint(append(dst, `,"size":`...), size, 10)
	dst = strconv.AppendInt(append(dst, `,"level":`...), int64(level), 10)
	dst = append(dst, `,"hashes":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, `"}}`...)
}

// parseOutlineLine reads a line of exactly appendOutline's spelling.
func parseOutlineLine(line []byte) (exportedOutline, bool) {
	var v struct {
		Outline exportedOutline `json:"outline"`
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return exportedOutline{}, false
	}
	x := v.Outline
	raw, err := base64.StdEncoding.DecodeString(x.Hashes)
	if err != nil || len(raw)%HashSize != 0 {
		return exportedOutline{}, false
	}
	for i := 0; i < len(raw); i += HashSize {
		x.list = append(x.list, Hash(raw[i:i+HashSize]))
	}
	return x, string(appendOutlineFields(nil, x.Shard, x.Size, x.Level, raw)) == string(line)
}
