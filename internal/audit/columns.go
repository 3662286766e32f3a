package audit

import (
	"bytes"
	"unicode/utf8"
)

// columns gathers what a segment's small columns must say: the ones by which queries decide whether to read the segment
// at all. No signature covers them, so a change to them hides events from every query while all roots still fit; they
// are therefore made anew from the events, which the roots do cover.
type columns struct {
	first, last []byte // in the form of AppendTime
	mask        uint64
}

// add takes the fields of the segment's next event.
func (c *columns) add(f *fields) {
	if c.first == nil || bytes.Compare(f.time, c.first) < 0 {
		c.first = append(c.first[:0], f.time...)
	}
	if bytes.Compare(f.time, c.last) > 0 {
		c.last = append(c.last[:0], f.time...)
	}
	resource := f.resource
	if bytes.IndexByte(resource, '\\') >= 0 {
		resource = unescape(resource)
	}
	if !bytes.ContainsRune(resource, utf8.RuneError) { // what stood there when the mask was made can't be told any more
		c.mask |= ResourceMask(string(resource))
	}
}

// describe says whether the columns of g are those of its events. Bits of the mask beyond theirs hide nothing.
func (c *columns) describe(g *Segment) bool {
	return bytes.Equal(AppendTime(nil, g.FirstTime), c.first) && bytes.Equal(AppendTime(nil, g.LastTime), c.last) && g.Mask&c.mask == c.mask
}
