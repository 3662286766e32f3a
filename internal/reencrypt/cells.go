package reencrypt

import "encoding/binary"

// nullLen is the length that marks NULL.
const nullLen = 0xffffffff

// Cells is one column of a page: values back to back in one buffer, each behind its length (u32, big-endian, all ones for
// NULL). That is also how PostgreSQL's binary arrays hold their elements, so a page goes out without being taken apart.
// The zero value is empty; Reset keeps the memory. It belongs to one goroutine at a time.
type Cells struct {
	buf  []byte
	ends []int
}

// Len is the number of values.
func (c *Cells) Len() int { return len(c.ends) }

// Size is the number of bytes that the values take, lengths included.
func (c *Cells) Size() int { return len(c.buf) }

// Reset forgets the values.
func (c *Cells) Reset() { c.buf, c.ends = c.buf[:0], c.ends[:0] }

// Wipe overwrites the values, plaintexts perhaps, and forgets them.
func (c *Cells) Wipe() {
	clear(c.buf[:cap(c.buf)])
	c.Reset()
}

// Append adds one value.
func (c *Cells) Append(v []byte) {
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(len(v)))
	c.buf = append(c.buf, v...)
	c.ends = append(c.ends, len(c.buf))
}

// AppendNull adds a NULL.
func (c *Cells) AppendNull() {
	c.buf = binary.BigEndian.AppendUint32(c.buf, nullLen)
	c.ends = append(c.ends, len(c.buf))
}

// AppendFunc adds what write appends to the buffer it is given: for values that are made in place. When write fails,
// nothing is added.
func (c *Cells) AppendFunc(write func(dst []byte) ([]byte, error)) error {
	start := len(c.buf)
	out, err := write(append(c.buf, 0, 0, 0, 0))
	if err != nil {
		c.buf = c.buf[:start]
		return err
	}
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	c.buf = out
	c.ends = append(c.ends, len(out))
	return nil
}

// At is value i, nil for NULL (an empty value is not nil). It is valid until the next Append or Reset.
func (c *Cells) At(i int) []byte {
	v := c.raw(i)
	if binary.BigEndian.Uint32(v) == nullLen {
		return nil
	}
	return v[4:len(v):len(v)]
}

// IsNull reports whether value i is NULL.
func (c *Cells) IsNull(i int) bool { return binary.BigEndian.Uint32(c.raw(i)) == nullLen }

// Range is the values from up to but not including to, in the form of the buffer.
func (c *Cells) Range(from, to int) []byte { return c.buf[c.start(from):c.start(to)] }

func (c *Cells) raw(i int) []byte { return c.buf[c.start(i):c.ends[i]] }

func (c *Cells) start(i int) int {
	if i == 0 {
		return 0
	}
	return c.ends[i-1]
}

// cutCell splits the first value off an encoded run. ok is false when b doesn't begin with a whole value.
func cutCell(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n, b := binary.BigEndian.Uint32(b), b[4:]
	if n == nullLen {
		return nil, b, true
	}
	if uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
