package keys

import (
	"math"
	"testing"
	"time"
)

// A version is followed at nine tenths of its operations or bytes, warned of at three quarters, and overdue when it may protect no more.
func TestVersionsAreFollowedByUse(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		limits                Cryptoperiod
		ops, bytes            uint64
		used                  int
		soon, rotate, overdue bool
	}{
		{Cryptoperiod{}, math.MaxUint64, math.MaxUint64, 0, false, false, false},
		{Cryptoperiod{MaxOperations: 1000}, 0, math.MaxUint64, 0, false, false, false},
		{Cryptoperiod{MaxOperations: 1000}, 749, 0, 74, false, false, false},
		{Cryptoperiod{MaxOperations: 1000}, 750, 0, 75, true, false, false},
		{Cryptoperiod{MaxOperations: 1000}, 899, 0, 89, true, false, false},
		{Cryptoperiod{MaxOperations: 1000}, 900, 0, 90, true, true, false},
		{Cryptoperiod{MaxOperations: 1000}, 1000, 0, 100, false, true, true},
		{Cryptoperiod{MaxOperations: 1000}, 2000, 0, 100, false, true, true},
		{Cryptoperiod{MaxOperations: 1000, MaxBytes: 10}, 1, 9, 90, true, true, false},
		{Cryptoperiod{MaxOperations: 1}, 0, 0, 0, false, false, false},
		{Cryptoperiod{MaxBytes: 1}, 0, 1, 100, false, true, true},
		{Cryptoperiod{MaxBytes: maxCount}, 0, maxCount - 1, 99, true, true, false},
		{Cryptoperiod{MaxBytes: math.MaxUint64}, 0, math.MaxUint64 - 1, 99, true, true, false},
	} {
		times := ActiveVersion{Cryptoperiod: c.limits, Activated: now, Operations: c.ops, Bytes: c.bytes}.Times(Effective{}, nil)
		if times.Used() != c.used || times.DueSoon(now) != c.soon || times.ToRotate(now) != c.rotate || times.Overdue(now) != c.overdue {
			t.Errorf("%+v after %d operations and %d bytes: %d %% used, soon %t, to rotate %t, overdue %t", c.limits, c.ops, c.bytes,
				times.Used(), times.DueSoon(now), times.ToRotate(now), times.Overdue(now))
		}
	}
	limits := Cryptoperiod{MaxOperations: 100, MaxBytes: 1000}
	for _, c := range []struct {
		ops, bytes, totalOps, totalBytes uint64
		want                             bool
	}{
		{1, 0, 89, 0, false}, {1, 0, 90, 0, true}, {1, 0, 91, 0, false}, {50, 0, 100, 0, true}, {1, 100, 5, 950, true}, {1, 10, 95, 950, false}, {0, 0, 90, 0, false},
	} {
		if got := limits.UsesUp(c.ops, c.bytes, c.totalOps, c.totalBytes); got != c.want {
			t.Errorf("a reservation of %d and %d that led to %d and %d: %t", c.ops, c.bytes, c.totalOps, c.totalBytes, got)
		}
	}
}
