package powercut

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

// Image is what a disk holds while the power is off: the content of each file by its name.
type Image map[string][]byte

// Disk is one flat directory of files. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex // guards everything below
	rnd     *rand.Rand
	lastID  uint64
	dirMode uint32
	names   map[string]*file // what programs see
	synced  map[string]*file // what the last sync of the directory left
	pending [][]naming       // what was done to the names since, in order; a rename is one step

	ops, cutAt int64 // operations that changed something, and the one that is cut; 0 = none
	mode       Mode
	syncs      int64 // syncs of files so far, and the one that fails; 0 = none
	failAt     int64
	failed     bool
	image      Image // set by the cut
	dead       chan struct{}
}

// naming is a change of one name: to a file, or away (nil).
type naming struct {
	name string
	file *file
}

// New switches a disk on. A nil image is an empty disk. What a cut leaves is drawn from the seed.
func New(image Image, seed uint64) *Disk {
	d := &Disk{rnd: rand.New(rand.NewPCG(seed, 0)), dirMode: 0o700, names: map[string]*file{}, dead: make(chan struct{})}
	for _, name := range slices.Sorted(maps.Keys(image)) {
		d.names[name] = d.add(0o600, image[name])
	}
	d.synced = maps.Clone(d.names)
	return d
}

// add makes a file without a name.
func (d *Disk) add(mode uint32, content []byte) *file {
	d.lastID++
	return newFile(d.lastID+1, mode, content) // 1 is the directory
}

// CutAt cuts the power in the middle of the n-th operation that changes something, counted from now.
func (d *Disk) CutAt(n int64, mode Mode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt, d.mode = d.ops+n, mode
}

// FailSync lets the n-th sync of a file from now fail with an I/O error, once.
func (d *Disk) FailSync(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt = d.syncs + n
}

// SyncFailed says whether the failure of FailSync has happened.
func (d *Disk) SyncFailed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// Ops is how many operations have changed something.
func (d *Disk) Ops() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Cut cuts the power now, unless it is off already.
func (d *Disk) Cut(mode Mode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image == nil {
		d.mode = mode
		d.powerOff()
	}
}

// Dead is closed by the cut. From then on the disk answers every change with an I/O error.
func (d *Disk) Dead() <-chan struct{} { return d.dead }

// Image is what the cut left; nil before it.
func (d *Disk) Image() Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.image
}

// begin is called with mu held by each operation that changes something. It reports whether the disk is alive, and cuts
// the power when the time has come; the operation that it happens to is then done or not, like any unsynced one.
func (d *Disk) begin(change func()) syscall.Errno {
	if d.image != nil {
		return syscall.EIO
	}
	d.ops++
	change()
	if d.ops == d.cutAt {
		d.powerOff()
		return syscall.EIO
	}
	return 0
}

// powerOff draws what is left.
func (d *Disk) powerOff() {
	names := maps.Clone(d.synced)
	if d.mode != DropUnsynced { // file systems keep the order of such changes
		for _, step := range d.pending[:d.rnd.IntN(len(d.pending)+1)] {
			apply(names, step)
		}
	}
	d.image = Image{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.image[name] = names[name].survivor(d.mode, d.rnd)
	}
	close(d.dead)
}

func apply(names map[string]*file, step []naming) {
	for _, n := range step {
		if n.file == nil {
			delete(names, n.name)
		} else {
			names[n.name] = n.file
		}
	}
}

// name takes one step, which syncDir makes last.
func (d *Disk) name(step ...naming) {
	apply(d.names, step)
	d.pending = append(d.pending, step)
}

func (d *Disk) create(name string, mode uint32) (f *file, errno syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if there := d.names[name]; there != nil {
		return there, 0
	}
	errno = d.begin(func() { f = d.add(mode&0o7777, nil); d.name(naming{name, f}) })
	return f, errno
}

func (d *Disk) unlink(name string) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return syscall.ENOENT
	}
	return d.begin(func() { d.name(naming{name, nil}) })
}

func (d *Disk) rename(from, to string) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[from]
	if f == nil {
		return syscall.ENOENT
	}
	return d.begin(func() { d.name(naming{to, f}, naming{from, nil}) })
}

func (d *Disk) syncDir() syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.begin(func() {}); errno != 0 {
		return errno
	}
	d.synced, d.pending = maps.Clone(d.names), nil
	return 0
}

func (d *Disk) write(f *file, p []byte, off int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begin(func() { f.write(p, off) })
}

func (d *Disk) truncate(f *file, size int) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begin(func() { f.truncate(size) })
}

func (d *Disk) sync(f *file) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.begin(func() {}); errno != 0 {
		return errno
	}
	if d.syncs++; d.syncs == d.failAt {
		d.failed = true
		return f.failSync()
	}
	f.sync()
	return 0
}
