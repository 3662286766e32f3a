// Package powercut is a disk whose power can be cut: a small file system in memory, mounted with FUSE, that knows what
// was only written and what was synced. Programs on it see what they wrote; after a cut there is what a real disk could
// have kept.
//
//	disk := powercut.New(nil, seed)
//	disk.CutAt(1234, powercut.TornSectors)      // at the 1,234th operation that changes something
//	m, err := powercut.Mount(disk, dir)
//	… run a program on dir in ANOTHER process, until <-disk.Dead() …
//	… kill it …
//	err = m.Unmount()
//	disk = powercut.New(disk.Image(), seed+1)   // the machine starts again
//
// The program must not run in this process: a Go program that waits in a page fault for a file system of its own stops
// its own garbage collector, and both wait for ever.
//
// # What a cut leaves
//
// A file has the content of its last fsync; a name has the meaning of the last fsync of the directory. Of what came
// after, a [Mode] says how much may be there as well. A disk that reports an error at an fsync does what Linux does
// (FailSync): it forgets that the pages were ever dirty, and the next fsync succeeds without them.
package powercut

// Mode says what a cut leaves of the writes that were never synced.
type Mode int

// The modes, from the tidiest to the worst.
const (
	DropUnsynced Mode = iota // nothing
	RandomPages              // of each 4 KiB page any of the contents that it had since, chosen by chance; at times all of the last ones
	TornSectors              // as RandomPages, but sector by sector of 512 bytes
)

// Modes lists them all.
func Modes() []Mode { return []Mode{DropUnsynced, RandomPages, TornSectors} }

// String names a mode in reports.
func (m Mode) String() string {
	return [...]string{"drop all unsynced", "random pages", "torn sectors"}[m]
}

const (
	pageSize   = 4096
	sectorSize = 512
)
