package clock

import (
	"sync"
	"testing"
	"time"
)

var begin = time.Date(2026, 1, 15, 10, 30, 45, 123456000, time.UTC)

// machine is a clock that is set. It has no monotonic readings.
type machine struct {
	passed, off time.Duration
}

func (m *machine) wall() time.Time        { return begin.Add(m.passed + m.off) }
func (m *machine) elapsed() time.Duration { return m.passed }

const day = 24 * time.Hour

// jumps are what clocks do: corrected, set, a leap second that is shown twice, a leap day forgotten, an hour of daylight
// saving taken for real time, a year mistyped, a battery that is empty.
var jumps = []time.Duration{
	time.Millisecond, time.Second, 59 * time.Second, 61 * time.Second, 5 * time.Minute, time.Hour, day, 7 * day, 31 * day, 366 * day, 3653 * day, 56 * 366 * day,
}

func TestNeverGoesBack(t *testing.T) {
	for _, size := range jumps {
		for _, jump := range []time.Duration{size, -size} {
			m := &machine{}
			c := New(m.wall, m.elapsed)
			last := c.Now()
			if !last.Equal(m.wall()) || c.Behind() != 0 {
				t.Fatalf("%v by a clock that shows %v", last, m.wall())
			}
			look := func() time.Time {
				t.Helper()
				now := c.Now()
				if now.Before(last) || now.Before(m.wall().Truncate(time.Microsecond)) {
					t.Errorf("jump of %v: %v after %v, by a clock that shows %v", jump, now, last, m.wall())
				}
				last = now
				return now
			}
			for _, off := range []time.Duration{jump, 0, -jump, 0} {
				m.off = off
				for range 5 {
					look()
					m.passed += 10 * time.Minute
				}
			}
			look()
			if ahead := c.Behind(); ahead > 0 && ahead < 20*366*day { // it is made good at a tenth of the time that passes
				m.passed += 10*ahead + time.Second
				look()
				if c.Behind() > time.Millisecond {
					t.Errorf("jump of %v: still %v ahead after ten times as long", jump, c.Behind())
				}
			}
		}
	}
}

func TestGoesOnAtNineTenthsWhileBehind(t *testing.T) {
	m := &machine{}
	c := New(m.wall, m.elapsed)
	high := c.Now()
	m.off = -time.Hour
	if now := c.Now(); !now.Equal(high) || c.Behind() != time.Hour {
		t.Errorf("after a jump back of an hour: %v, %v behind", now.Sub(high), c.Behind())
	}
	for range 100 {
		m.passed += time.Minute
		c.Now()
	}
	if went := c.Now().Sub(high); went != 90*time.Minute || c.Behind() != 50*time.Minute {
		t.Errorf("%v in 100 minutes, %v behind", went, c.Behind())
	}
	m.off -= time.Hour // once more
	before := c.Now()
	m.passed += 10 * time.Minute
	if went := c.Now().Sub(before); went != 9*time.Minute {
		t.Errorf("%v in 10 minutes after a second jump", went)
	}
	m.off = 0
	if now := c.Now(); !now.Equal(m.wall()) || c.Behind() != 0 {
		t.Errorf("set right: %v, %v behind", now, c.Behind())
	}
}

func TestRaiseAndReset(t *testing.T) {
	m := &machine{}
	c := New(m.wall, nil)
	c.Raise(begin.Add(-time.Hour))
	if c.Behind() != 0 || !c.Now().Equal(begin) {
		t.Errorf("raised to the past: %v", c.Now())
	}
	c.Raise(begin.Add(time.Hour))
	if now := c.Now(); !now.Equal(begin.Add(time.Hour)) || c.Behind() != time.Hour || !c.Wall().Equal(begin) {
		t.Errorf("raised: %v", now)
	}
	c.Reset(c.Wall())
	if now := c.Now(); !now.Equal(begin) || c.Behind() != 0 {
		t.Errorf("reset: %v", now)
	}
	m.passed = time.Hour
	if c.Elapsed() != time.Hour {
		t.Errorf("elapsed %v", c.Elapsed())
	}
}

// Many ask at once, also while the clock stands behind: each hears times that don't go back.
func TestConcurrently(t *testing.T) {
	c := New(time.Now, nil)
	c.Raise(time.Now().Add(time.Hour))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			last := c.Now()
			for n := range 20_000 {
				now := c.Now()
				if now.Before(last) {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
				if i == 0 && n%1000 == 0 {
					c.Raise(now.Add(time.Second))
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkNow(b *testing.B) {
	b.Run("time", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				_ = time.Now()
			}
		})
	})
	b.Run("behind", func(b *testing.B) {
		c := New(time.Now, nil)
		c.Raise(time.Now().Add(time.Hour))
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				_ = c.Now()
			}
		})
	})
	b.Run("clock", func(b *testing.B) {
		c := New(time.Now, nil)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				_ = c.Now()
			}
		})
	})
}
