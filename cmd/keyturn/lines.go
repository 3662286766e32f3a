package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"

	"github.com/keyturn/keyturn/api"
)

// outcome is one line's result: text to print and the item of the JSON document, or an error.
type outcome struct {
	text []byte
	item any
	err  *api.BatchError
}

// lineOp does one batch of lines; the error is for the batch as a whole.
type lineOp func(ctx context.Context, s *store, key string, bound map[string]string, lines [][]byte) ([]outcome, error)

// The size of a batch: what fits into one request, base64 and context of every item included.
const (
	batchBytes = api.MaxBody - 64<<10
	itemBytes  = 64 // of JSON around an item
)

// lineBatch gathers lines until a request is full.
type lineBatch struct {
	lines   [][]byte
	numbers []int // of the lines, from 1
	size    int
}

// runLines takes every line of the input as one item, in order, batch after batch, in bounded memory. A line that fails
// is an empty line of the output and named on stderr; any of them makes the status 6.
func (a *app) runLines(ctx context.Context, s *store, file, key string, bound map[string]string, op lineOp) error {
	in, err := a.input(ctx, file)
	if err != nil {
		return err
	}
	defer in.Close()
	frame, err := json.Marshal(bound)
	if err != nil {
		return usage("context", "encoding the context")
	}
	r := lineRun{a: a, s: s, key: key, bound: bound, op: op, perItem: len(frame) + itemBytes}
	r.out = newLineOutput(a)
	return r.all(ctx, in)
}

// lineRun is one run over an input.
type lineRun struct {
	a       *app
	s       *store
	key     string
	bound   map[string]string
	op      lineOp
	perItem int
	out     *lineOutput
	batch   lineBatch
	number  int // of the line that was read last
	failed  int
}

func (r *lineRun) all(ctx context.Context, in io.Reader) error {
	buf := bufio.NewReaderSize(in, 256<<10)
	for {
		line, tooLong, err := readLine(buf, maxCiphertext)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return reading(err, "lines")
		}
		if err := r.add(ctx, line, tooLong); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if err := r.out.end(); err != nil {
		return err
	}
	if r.failed > 0 {
		r.a.note("keyturn: %s of %s lines failed; each is an empty line of the output", grouped(int64(r.failed)), grouped(int64(r.number)))
		return exit(api.ExitIntegrity)
	}
	return nil
}

// add takes one line, and sends the batch before it when that line doesn't fit in any more.
func (r *lineRun) add(ctx context.Context, line []byte, tooLong bool) error {
	r.number++
	size := base64.StdEncoding.EncodedLen(len(line)) + r.perItem
	if tooLong || size > batchBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
		return r.put(r.number, outcome{err: &api.BatchError{Code: api.CodeTooLarge, Message: "the line is too long"}})
	}
	if len(r.batch.lines) == api.MaxBatchItems || r.batch.size+size > batchBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.batch.lines = append(r.batch.lines, line)
	r.batch.numbers = append(r.batch.numbers, r.number)
	r.batch.size += size
	return nil
}

func (r *lineRun) flush(ctx context.Context) error {
	b := r.batch
	r.batch = lineBatch{lines: b.lines[:0], numbers: b.numbers[:0]}
	if len(b.lines) == 0 {
		return nil
	}
	outcomes, err := r.op(ctx, r.s, r.key, r.bound, b.lines)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if err := r.put(b.numbers[i], o); err != nil {
			return err
		}
		clear(b.lines[i])
		clear(o.text)
	}
	return nil
}

func (r *lineRun) put(number int, o outcome) error {
	if !r.a.json && bytes.IndexByte(o.text, '\n') >= 0 { // it would look like two lines
		o = outcome{err: &api.BatchError{Code: api.CodeInvalid, Message: "its plaintext holds a line break: open it alone, or with --json"}}
	}
	if o.err != nil {
		r.failed++
		message := string(o.err.Code)
		if o.err.Message != "" {
			message += ": " + o.err.Message
		}
		r.a.note("line %d: %s", number, printable(message))
	}
	return r.out.put(o)
}

// readLine reads up to a newline, which is no part of the line. A line over the limit is skipped to its end.
func readLine(r *bufio.Reader, limit int) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if len(line) > limit {
			line, tooLong = nil, true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && (len(line) > 0 || tooLong):
			return line, tooLong, nil
		case err != nil:
			return nil, false, err
		}
		return bytes.TrimSuffix(line, []byte("\n")), tooLong, nil
	}
}

// lineOutput prints outcomes as lines, or as the items of one JSON document.
type lineOutput struct {
	w     *bufio.Writer
	json  bool
	items int
}

func newLineOutput(a *app) *lineOutput {
	return &lineOutput{w: bufio.NewWriterSize(a.out, 256<<10), json: a.json}
}

func (o *lineOutput) put(v outcome) error {
	if !o.json {
		_, _ = o.w.Write(v.text)
		return writing(o.w.WriteByte('\n'))
	}
	item := v.item
	if v.err != nil {
		item = struct {
			Error *api.BatchError `json:"error"`
		}{v.err}
	}
	b, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if _, err = o.w.WriteString(map[bool]string{true: `{"items":[`, false: ","}[o.items == 0]); err != nil {
		return writing(err)
	}
	o.items++
	_, err = o.w.Write(b)
	return writing(err)
}

func (o *lineOutput) end() error {
	if o.json {
		closing := "]}\n"
		if o.items == 0 {
			closing = `{"items":[]}` + "\n"
		}
		_, _ = o.w.WriteString(closing)
	}
	return writing(o.w.Flush())
}

func encryptLines(ctx context.Context, s *store, key string, bound map[string]string, lines [][]byte) ([]outcome, error) {
	items := make([]api.EncryptRequest, len(lines))
	for i, line := range lines {
		items[i] = api.EncryptRequest{Plaintext: line, Context: bound}
	}
	answers, err := s.EncryptBatch(ctx, key, items)
	out := make([]outcome, len(answers))
	for i, v := range answers {
		out[i] = outcome{text: []byte(v.Ciphertext), item: v, err: v.Error}
	}
	return out, err
}

func decryptLines(ctx context.Context, s *store, key string, bound map[string]string, lines [][]byte) ([]outcome, error) {
	items := make([]api.DecryptRequest, len(lines))
	for i, line := range lines {
		items[i] = api.DecryptRequest{Ciphertext: string(bytes.TrimSpace(line)), Context: bound}
	}
	answers, err := s.DecryptBatch(ctx, key, items)
	out := make([]outcome, len(answers))
	for i, v := range answers {
		out[i] = outcome{text: v.Plaintext, item: v, err: v.Error}
	}
	return out, err
}

func rewrapLines(ctx context.Context, s *store, key string, bound map[string]string, lines [][]byte) ([]outcome, error) {
	items := make([]api.RewrapRequest, len(lines))
	for i, line := range lines {
		items[i] = api.RewrapRequest{Ciphertext: string(bytes.TrimSpace(line)), Context: bound}
	}
	answers, err := s.RewrapBatch(ctx, key, items)
	out := make([]outcome, len(answers))
	for i, v := range answers {
		out[i] = outcome{text: []byte(v.Ciphertext), item: v, err: v.Error}
	}
	return out, err
}
