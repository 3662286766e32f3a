package keys

import (
	"math/bits"
	"time"
)

// Times is how a version stands against its end: what the policies say, or the key's own cryptoperiod where it has one.
type Times struct {
	Due  time.Time // when the active version is to be followed by the next; zero = on demand only
	Warn time.Time // from when it is due soon; zero when Due is

	began time.Time // when the version became active
	used  int       // percent of its operations or bytes, whichever is more; 0 without such a limit
}

// How much of its operations or bytes, in percent, a version has used when it is due soon and when it is to be followed: early
// enough that the next one is there before anybody is refused, since what nodes reserve counts as used.
const (
	usedSoon = 75
	UsedUp   = 90
	usedAll  = 100
)

// Times of the active version of a key, under the policies that hold for it. schedule answers the first time after t that
// e.Schedule names, the zero time when there is none; it may be nil while e.Schedule is empty. A key without an active
// version is never due.
func (k Key) Times(e Effective, schedule func(t time.Time) time.Time) Times {
	v, ok := k.Active()
	if !ok {
		return Times{}
	}
	return ActiveVersion{
		ByPolicy: k.ByPolicy, Cryptoperiod: k.Cryptoperiod, Activated: v.Activated, Operations: v.Operations, Bytes: v.Bytes,
	}.Times(e, schedule)
}

// Times is Key.Times. What a key was made with is more specific than any policy but those that name the key.
func (v ActiveVersion) Times(e Effective, schedule func(t time.Time) time.Time) Times {
	period, warnAge := v.Cryptoperiod.Period, v.Cryptoperiod.Warn
	if v.ByPolicy || e.named["period"] {
		period, warnAge = e.Period, 0
	}
	t := Times{began: v.Activated, used: v.Cryptoperiod.Used(v.Operations, v.Bytes)}
	if period > 0 {
		// Keys of earlier releases may have a shorter one. They work as they did, and aren't rotated each time somebody looks.
		t.Due = v.Activated.Add(max(period, MinCryptoperiod))
	}
	if schedule != nil && e.Schedule != "" && (v.ByPolicy || e.named["schedule"]) {
		if next := schedule(v.Activated); !next.IsZero() && (t.Due.IsZero() || next.Before(t.Due)) {
			t.Due = next
		}
	}
	if t.Due.IsZero() {
		return t
	}
	if warnAge > 0 {
		t.Warn = v.Activated.Add(warnAge)
		return t
	}
	t.Warn = t.Due.Add(-e.Warn)
	// The shipped warning can't know how short lives are made: where it would cover most of one, the last sixth is what is
	// meant. What a person says is obeyed.
	if life := t.Due.Sub(v.Activated); e.shipped["warn"] && e.Warn > life/2 {
		t.Warn = t.Due.Add(-life / 6)
	}
	return t
}

// Overdue says whether the version should have been followed by now: by its age, or because it has protected all that it may.
// One that was made in the future, by a clock that was wrong then, protects nothing (see Usable) and is followed at once,
// whatever its period.
func (t Times) Overdue(now time.Time) bool {
	return !t.Due.IsZero() && !now.Before(t.Due) || t.used >= usedAll || ahead(t.began, now)
}

// ToRotate says whether keyturn follows the version with the next one now: when it is overdue, and when nine tenths of its
// operations or bytes are used.
func (t Times) ToRotate(now time.Time) bool { return t.Overdue(now) || t.used >= UsedUp }

// Used is how much of its operations or bytes the version has used, in percent, whichever is more; 0 without such a limit.
func (t Times) Used() int { return t.used }

// Used is how much of a cryptoperiod's operations or bytes these are, in percent, rounded down, whichever is more.
func (c Cryptoperiod) Used(operations, bytes uint64) int {
	return max(percent(operations, c.MaxOperations), percent(bytes, c.MaxBytes))
}

func percent(used, limit uint64) int {
	switch {
	case limit == 0:
		return 0
	case used >= limit:
		return 100
	}
	hi, lo := bits.Mul64(used, 100)
	q, _ := bits.Div64(hi, lo, limit) // used < limit, so hi < limit
	return int(q)
}

// UsesUp says whether a reservation that led to these totals made the version one that is to be followed.
func (c Cryptoperiod) UsesUp(operations, bytes, totalOperations, totalBytes uint64) bool {
	return c.Used(totalOperations, totalBytes) >= UsedUp && c.Used(totalOperations-operations, totalBytes-bytes) < UsedUp
}

// ahead says that a version became active at a time that hasn't come yet, by more than clocks may differ.
func ahead(activated, now time.Time) bool { return now.Before(activated.Add(-day)) }

// DueSoon says whether it is time to warn, and not too late yet.
func (t Times) DueSoon(now time.Time) bool {
	return !t.Overdue(now) && (t.SoonByAge(now) || t.used >= usedSoon)
}

// SoonByAge says whether age alone is a reason to warn.
func (t Times) SoonByAge(now time.Time) bool { return !t.Due.IsZero() && !now.Before(t.Warn) }
