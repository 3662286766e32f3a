package powercut_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/faulttest"
	"github.com/keyturn/keyturn/internal/faulttest/powercut"
)

// childEnv names the directory in which this test binary works as a worker instead of testing; childKind says which, and
// childLook that it only looks at what is there.
const (
	childEnv  = "KEYTURN_POWERCUT_DIR"
	childKind = "KEYTURN_POWERCUT_KIND"
	childLook = "KEYTURN_POWERCUT_LOOK"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		faulttest.Main(m)
	}
	run := runStore
	if kind := os.Getenv(childKind); kind != "store" {
		run = func(dir string, out *os.File) error { return runRaw(dir, kind, out) }
	}
	if err := run(dir, os.Stdout); err != nil && !errors.Is(err, errLooked) {
		for e := err; e != nil; e = errors.Unwrap(e) {
			fmt.Fprintln(os.Stderr, e)
		}
		os.Exit(1)
	}
}

// errLooked ends a worker that was only to look.
var errLooked = errors.New("looked")

// tellState says that everything is in order with n operations done.
func tellState(out *os.File, n uint64) error {
	fmt.Fprintln(out, "state", n)
	if os.Getenv(childLook) != "" {
		return errLooked
	}
	return nil
}

// campaign cuts the power of one disk again and again.
type campaign struct {
	t     *testing.T
	kind  string
	look  bool // the next worker only looks
	rnd   *rand.Rand
	image powercut.Image
	done  uint64 // operations acknowledged on this disk

	cuts, acks, unknown, failedSyncs, refused, lost int
}

// round is one life between two cuts: what the worker said, and whether it found its state in order.
type round struct {
	state   uint64
	opened  bool
	acks    uint64
	stopped string
	broken  string
	stderr  string
}

// lifetime bounds a worker's life, on a machine that is busy with other tests.
const lifetime = 5 * time.Minute

// life runs a worker on the disk until the power is cut.
func (c *campaign) life(disk *powercut.Disk) (r round) {
	dir := c.t.TempDir()
	m, err := powercut.Mount(disk, dir)
	if err != nil {
		c.t.Fatalf("%v: power cuts need a /dev/fuse that this user may open, and root or user namespaces; "+
			"KEYTURN_TEST_NO_FUSE=1 skips these tests", err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, childKind+"="+c.kind)
	if c.look {
		cmd.Env = append(cmd.Env, childLook+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	tooLong := time.AfterFunc(lifetime, func() { disk.Cut(powercut.DropUnsynced) })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r.hear(lines.Text())
	}
	if !tooLong.Stop() {
		c.t.Errorf("a worker ran for %v", lifetime)
	}
	disk.Cut(powercut.DropUnsynced) // when the worker stopped by itself, after a sync that failed
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // its end is no news: it was killed, or said why it stopped
	if err := m.Unmount(); err != nil {
		c.t.Fatal(err)
	}
	r.stderr = stderr.String()
	return r
}

func (r *round) hear(line string) {
	word, rest, _ := strings.Cut(line, " ")
	n, _ := strconv.ParseUint(rest, 10, 64)
	switch word {
	case "state":
		r.state, r.opened = n, true
	case "ack":
		r.acks = n
	case "stopped":
		r.stopped = rest
	case "broken":
		r.broken = rest
	}
}

// cut runs one round and judges what it found of the rounds before.
func (c *campaign) cut(mode powercut.Mode, operations int64, failSync int64) {
	disk := powercut.New(c.image, c.rnd.Uint64())
	disk.CutAt(operations, mode)
	if failSync > 0 {
		disk.FailSync(failSync)
	}
	r := c.life(disk)
	c.cuts++
	c.judge(r, mode)
	if disk.SyncFailed() {
		c.failedSyncs++
		switch {
		case strings.Contains(r.stopped, "refuses=false"):
			c.t.Errorf("%s: after a failed sync the store went on writing", mode)
		case strings.Contains(r.stopped, "refuses=true"):
			c.refused++
		}
	}
	c.image = disk.Image()
}

// last looks at what the last cut left.
func (c *campaign) last() {
	c.look = true
	c.cut(powercut.DropUnsynced, 1<<40, 0)
	c.cuts--
}

func (c *campaign) judge(r round, mode powercut.Mode) {
	switch {
	case r.broken != "":
		c.t.Errorf("after a cut (next mode %s) the store is broken: %s", mode, r.broken)
	case !r.opened:
		return // cut while it was opened: the next round looks
	case r.state < c.done:
		c.lost++
	case r.state > c.done+1 && c.kind == "NORMAL":
		// Frames of an earlier life stand behind one that was lost. Written again, with the same bytes and so with the same
		// sums, that one makes them count again. A synced log has no such gap.
	case r.state > c.done+1:
		c.t.Errorf("%d operations are there after %d acknowledged ones", r.state, c.done)
	case r.state == c.done+1:
		c.unknown++ // the one that was under way
	}
	c.done = max(r.state, r.acks)
	if r.acks > r.state {
		c.acks += int(r.acks - r.state)
	}
}

func needFUSE(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYTURN_TEST_NO_FUSE") == "1" {
		t.Skip("needs FUSE, and KEYTURN_TEST_NO_FUSE=1")
	}
}

func newCampaign(t *testing.T, kind string) (*campaign, uint64) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("KEYTURN_SEED"), 10, 64); err == nil {
		seed = s
	}
	return &campaign{t: t, kind: kind, rnd: rand.New(rand.NewPCG(seed, 1))}, seed
}

// TestPowerCuts is row 3 of the fault campaigns: 50 cuts, or KEYTURN_SOAK_CUTS (2,000) with KEYTURN_SOAK set. Promise P1:
// nothing that was acknowledged is ever lost, and what is there is whole.
func TestPowerCuts(t *testing.T) {
	needFUSE(t)
	cuts := 50
	if os.Getenv("KEYTURN_SOAK") != "" {
		cuts = 2000
		if n, err := strconv.Atoi(os.Getenv("KEYTURN_SOAK_CUTS")); err == nil {
			cuts = n
		}
	}
	c, seed := newCampaign(t, "store")
	for n := range cuts {
		if n%10 == 0 {
			c.image, c.done = nil, 0 // a new disk, so that cuts meet the making of the store too
		}
		mode := powercut.Modes()[n%3]
		limit := int64(2500)
		if n%10 == 0 {
			limit = 300
		}
		failSync := int64(0)
		if n%4 == 3 {
			failSync = 1 + c.rnd.Int64N(60)
		}
		c.cut(mode, 1+c.rnd.Int64N(limit), failSync)
		if t.Failed() {
			break
		}
	}
	c.last()
	t.Logf("power cuts: seed %d, %d cuts, %d failed syncs (%d closed the store to writing), %d operations acknowledged, %d lost, %d under way that had happened",
		seed, c.cuts, c.failedSyncs, c.refused, c.acks, c.lost, c.unknown)
	if c.lost > 0 || c.acks == 0 {
		t.Errorf("%d acknowledged operations were lost of %d", c.lost, c.acks)
	}
}

// TestTheDiskLosesWhatIsNotSynced proves the instrument: the same cuts on plain SQLite find that synchronous=NORMAL loses
// acknowledged commits, and that FULL doesn't.
func TestTheDiskLosesWhatIsNotSynced(t *testing.T) {
	needFUSE(t)
	for kind, loses := range map[string]bool{"NORMAL": true, "FULL": false} {
		c, seed := newCampaign(t, kind)
		for n := range 8 {
			c.cut(powercut.Modes()[n%3], 40+c.rnd.Int64N(300), 0)
		}
		c.last()
		t.Logf("synchronous=%s: seed %d, %d cuts, %d commits acknowledged, %d cuts lost some", kind, seed, c.cuts, c.acks, c.lost)
		if (c.lost > 0) != loses {
			t.Errorf("synchronous=%s: %d cuts lost acknowledged commits", kind, c.lost)
		}
	}
}
