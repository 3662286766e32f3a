package connectortest

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/reencrypt"
)

// Memory is a table of one text column in memory, as a target of runs: for tests of what a run does when its database
// misbehaves in ways that a real one does too rarely, or too slowly. Its zero value is empty. It is safe for concurrent use.
type Memory struct {
	// What happens before and after a swap, before a page is read, and before a flush and a census. Set them before a run
	// begins. An error of AfterSwap comes after the rows were written: a connection that broke during the commit.
	BeforeSwap, AfterSwap func(rows int) error
	BeforeRead            func() error
	BeforeFlush           func() error
	BeforeCensus          func() error
	// Held rows can't be written: a swap that has one of them is contended. Refused rows are never taken.
	Held, Refused map[int64]bool

	mu   sync.Mutex
	rows map[int64]string
	// Writes counts how often each row was written by a swap.
	writes map[int64]int
}

// Put writes a row as an application does.
func (m *Memory) Put(id int64, v string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		m.rows, m.writes = map[int64]string{}, map[int64]int{}
	}
	m.rows[id] = v
}

// Get reads a row.
func (m *Memory) Get(id int64) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[id]
}

// Release lets a held row go.
func (m *Memory) Release(id int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.Held, id)
}

// Written is how often runs wrote a row.
func (m *Memory) Written(id int64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes[id]
}

// Writers is 2.
func (m *Memory) Writers() int { return 2 }

// Flush calls BeforeFlush.
func (m *Memory) Flush(context.Context) error { return call(m.BeforeFlush) }

// Longest is the length of the longest plaintext.
func (m *Memory) Longest(context.Context, int) (n int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.rows {
		if !strings.HasPrefix(v, "kt1.") {
			n = max(n, int64(len(v)))
		}
	}
	return n, nil
}

// Census counts row by row.
func (m *Memory) Census(_ context.Context, each func(reencrypt.Group) error) error {
	if err := call(m.BeforeCensus); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.rows {
		g := reencrypt.Group{Form: reencrypt.Text, Rows: 1}
		if strings.HasPrefix(v, "kt1.") {
			g.Prefix = []byte(v[:min(len(v), envelope.PrefixLen)])
		}
		if err := each(g); err != nil {
			return err
		}
	}
	return nil
}

// Reader reads m.
func (m *Memory) Reader(context.Context) (reencrypt.Reader, error) { return &memoryReader{m: m}, nil }

// Writer writes m.
func (m *Memory) Writer(context.Context) (reencrypt.Writer, error) { return memoryWriter{m}, nil }

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

type memoryReader struct {
	m    *Memory
	last int64 // the id of the last row that was handed out
	o    reencrypt.ReadOptions
}

func (r *memoryReader) Close() error { return nil }

func (r *memoryReader) Start(_ context.Context, after reencrypt.Key, o reencrypt.ReadOptions) error {
	r.last, r.o = -1<<63, o
	if cols, ok := after.Columns(1); ok {
		r.last = int64(binary.BigEndian.Uint64(cols[0]))
	}
	return nil
}

func (r *memoryReader) Next(ctx context.Context, p *reencrypt.Page) error {
	p.Reset()
	if err := call(r.m.BeforeRead); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	var ids []int64
	for id := range r.m.rows {
		if id > r.last {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:min(len(ids), r.o.Rows)] {
		r.add(p, id)
		r.last = id
	}
	return ctx.Err()
}

// add is called with m.mu held.
func (r *memoryReader) add(p *reencrypt.Page, id int64) {
	p.Keys[0].Append(binary.BigEndian.AppendUint64(nil, uint64(id)))
	p.Names[0].Append(strconv.AppendInt(nil, id, 10))
	v := r.m.rows[id]
	if r.o.Skip != nil && strings.HasPrefix(v, r.o.Skip[0].PrefixText()) {
		p.Values[0].AddWithout(reencrypt.Current)
		return
	}
	p.Values[0].Add([]byte(v), reencrypt.Text)
}

func (r *memoryReader) Find(_ context.Context, p *reencrypt.Page, keys []reencrypt.Key) error {
	p.Reset()
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, k := range keys {
		cols, _ := k.Columns(1)
		if id := int64(binary.BigEndian.Uint64(cols[0])); r.m.rows[id] != "" {
			r.add(p, id)
		}
	}
	return nil
}

type memoryWriter struct{ m *Memory }

func (w memoryWriter) Close() error { return nil }

func (w memoryWriter) Swap(ctx context.Context, b *reencrypt.Batch, from, to int) (n int, err error) {
	if w.m.BeforeSwap != nil {
		if err := w.m.BeforeSwap(to - from); err != nil {
			return 0, err
		}
	}
	if n, err = w.swap(b, from, to); err == nil && w.m.AfterSwap != nil {
		err = w.m.AfterSwap(to - from)
	}
	if err != nil {
		return 0, err
	}
	return n, ctx.Err()
}

func (w memoryWriter) swap(b *reencrypt.Batch, from, to int) (n int, err error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for i := from; i < to; i++ {
		switch id := int64(binary.BigEndian.Uint64(b.Keys[0].At(i))); {
		case w.m.Held[id]:
			return 0, reencrypt.ErrContended
		case w.m.Refused[id]:
			return 0, &reencrypt.Refusal{Reason: "the table won't have it"}
		}
	}
	for i := from; i < to; i++ {
		id := int64(binary.BigEndian.Uint64(b.Keys[0].At(i)))
		if v, ok := w.m.rows[id]; ok && v == string(b.Old[0].Values.At(i)) {
			w.m.rows[id] = string(b.New[0].Values.At(i))
			w.m.writes[id]++
			n++
		}
	}
	return n, nil
}
