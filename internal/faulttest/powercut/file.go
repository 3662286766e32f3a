package powercut

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// file is the content behind a name, or behind an open descriptor whose name is gone. Disk.mu guards it.
type file struct {
	id   uint64
	mode uint32
	now  []byte // what programs see
	disk []byte // what the last sync left

	dirty map[int][][]byte // by page: the contents that it was given since the last sync, oldest first
	sizes []int            // the sizes that the file had since then
}

func newFile(id uint64, mode uint32, content []byte) *file {
	return &file{id: id, mode: mode, now: slices.Clone(content), disk: slices.Clone(content), dirty: map[int][][]byte{}}
}

func (f *file) read(p []byte, off int64) int {
	if off >= int64(len(f.now)) {
		return 0
	}
	return copy(p, f.now[off:])
}

func (f *file) write(p []byte, off int64) {
	if end := int(off) + len(p); end > len(f.now) {
		f.grow(end)
	}
	copy(f.now[off:], p)
	for page := int(off) / pageSize; page*pageSize < int(off)+len(p); page++ {
		f.dirty[page] = append(f.dirty[page], slices.Clone(cut(f.now, page)))
	}
}

func (f *file) grow(size int) {
	f.now = resize(f.now, size)
	f.sizes = append(f.sizes, size)
}

func (f *file) truncate(size int) {
	if size > len(f.now) {
		f.grow(size)
		return
	}
	f.now = f.now[:size]
	f.sizes = append(f.sizes, size)
}

// sync brings to the disk what is dirty and nothing else: pages that were forgotten by failSync stay forgotten.
func (f *file) sync() {
	f.disk = resize(f.disk, len(f.now))
	for page := range f.dirty {
		copy(cut(f.disk, page), cut(f.now, page))
	}
	f.forget()
}

// failSync is an fsync that the disk answers with an error.
func (f *file) failSync() syscall.Errno {
	f.forget()
	return syscall.EIO
}

func (f *file) forget() { clear(f.dirty); f.sizes = nil }

// survivor is a content that the file may have after a cut. In one of four cases everything dirty had reached the disk in
// time, though nobody had heard of it.
func (f *file) survivor(mode Mode, rnd *rand.Rand) []byte {
	out := slices.Clone(f.disk)
	if mode == DropUnsynced {
		return out
	}
	pick := func(n int) int { return rnd.IntN(n + 1) } // how many of n steps were taken
	if rnd.IntN(4) == 0 {
		pick = func(n int) int { return n }
	}
	if n := pick(len(f.sizes)); n > 0 {
		out = resize(out, f.sizes[n-1])
	}
	unit := pageSize
	if mode == TornSectors {
		unit = sectorSize
	}
	for _, page := range slices.Sorted(maps.Keys(f.dirty)) { // sorted, so that a seed means the same each time
		versions := f.dirty[page]
		for at := 0; at < pageSize; at += unit {
			if n := pick(len(versions)); n > 0 {
				keep(cut(out, page), versions[n-1], at, unit)
			}
		}
	}
	return out
}

// keep copies one unit of a page's version, as far as both reach.
func keep(page, version []byte, at, unit int) {
	if at < len(page) && at < len(version) {
		copy(page[at:min(at+unit, len(page))], version[at:min(at+unit, len(version))])
	}
}

// cut is a page of b, shorter or empty at its end.
func cut(b []byte, page int) []byte {
	from := min(page*pageSize, len(b))
	return b[from:min(from+pageSize, len(b))]
}

// resize is b with another length, filled up with zeros, in the memory of b where there is room.
func resize(b []byte, size int) []byte {
	if size <= len(b) {
		return b[:size]
	}
	return append(b, make([]byte, size-len(b))...)
}
