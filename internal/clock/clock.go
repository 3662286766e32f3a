// Package clock tells time that doesn't go back.
//
//	c := clock.New(time.Now, nil)
//	c.Raise(seen)                   // what was seen before this process began
//	now := c.Now()                  // never before anything that it said, or was raised to
//	if c.Behind() > clock.Slack {}  // the machine's clock was set back
//
// What expired stays expired and what happened stays in the past, whatever is done to the machine's clock. While that
// stands behind, Now goes on at nine tenths of its speed, so that nothing stalls and nothing is undone, and an hour too
// much is made good within ten. It can't tell which of two times was the wrong one; a jump of years forward that was
// corrected is told it by Reset, which is somebody's decision.
package clock

import (
	"sync/atomic"
	"time"
)

// Slack is how far behind a clock may be before that is called a jump back. Less is what correcting a clock does.
const Slack = time.Minute

// grain is how fine Now remembers what it said: coarser than an operation, so that those that run at the same time don't
// pass one word of memory around, and finer than any period that is measured.
const grain = time.Millisecond

// Clock is safe for concurrent use.
type Clock struct {
	wall    func() time.Time
	elapsed func() time.Duration
	high    atomic.Int64           // the latest time that was said or seen, in microseconds since 1970
	late    atomic.Pointer[anchor] // set while the machine's clock stands behind
}

// anchor is where and when the machine's clock was found to stand behind.
type anchor struct {
	from int64 // microseconds since 1970
	at   time.Duration
}

// time is what is told at a moment.
func (a *anchor) time(now time.Duration) int64 {
	return a.from + int64((now-a.at)/10*9/time.Microsecond)
}

// New makes a clock from the machine's own. elapsed is how long it is since some fixed moment, by a clock that nobody can
// set; nil takes that of wall's monotonic readings.
func New(wall func() time.Time, elapsed func() time.Duration) *Clock {
	if elapsed == nil {
		begin := wall()
		elapsed = func() time.Duration { return wall().Sub(begin) }
	}
	return &Clock{wall: wall, elapsed: elapsed}
}

// Now is the machine's time, or a later one where a later one was seen.
func (c *Clock) Now() time.Time {
	t := c.wall()
	us, high := t.UnixMicro(), c.high.Load()
	if us < high || c.late.Load() != nil {
		return c.behind(t, us)
	}
	if us-high >= grain.Microseconds() {
		c.high.CompareAndSwap(high, us) // whoever was faster said about the same
	}
	return t
}

// behind is the time while the machine's clock, which shows t, stands before what was seen.
func (c *Clock) behind(t time.Time, us int64) time.Time {
	now := c.elapsed()
	a := c.late.Load()
	for a == nil {
		if us >= c.high.Load() {
			return t // it was reset meanwhile
		}
		c.late.CompareAndSwap(nil, &anchor{c.high.Load(), now})
		a = c.late.Load()
	}
	high := c.high.Load()
	told := max(a.time(now), high)
	if us >= told {
		c.late.CompareAndSwap(a, nil)
		c.raise(us)
		return t
	}
	if told-high >= grain.Microseconds() {
		c.raise(told)
	}
	return time.UnixMicro(told)
}

func (c *Clock) raise(us int64) (raised bool) {
	for {
		high := c.high.Load()
		if us <= high {
			return false
		}
		if c.high.CompareAndSwap(high, us) {
			return true
		}
	}
}

// Wall is the machine's time as it is: for what is compared with other clocks, and for deadlines.
func (c *Clock) Wall() time.Time { return c.wall() }

// Elapsed is how long it is since some fixed moment in the life of this process, whatever anybody does to the clock.
func (c *Clock) Elapsed() time.Duration { return c.elapsed() }

// Behind is how far the machine's clock stands before what was seen; 0 when it doesn't.
func (c *Clock) Behind() time.Duration {
	const most = int64(1<<63-1) / int64(time.Microsecond)
	return time.Duration(min(max(0, c.high.Load()-c.wall().UnixMicro()), most)) * time.Microsecond
}

// Raise says that t was seen: nothing before it will be told any more.
func (c *Clock) Raise(t time.Time) {
	if c.raise(t.UnixMicro()) && c.late.Load() != nil {
		c.late.Store(&anchor{t.UnixMicro(), c.elapsed()})
	}
}

// Reset forgets what was seen, but for t.
func (c *Clock) Reset(t time.Time) {
	c.high.Store(t.UnixMicro())
	c.late.Store(nil)
}
