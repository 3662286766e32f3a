package keys

import "time"

// Times is how a version stands against its end: what the policies say, or the key's own cryptoperiod where it has one.
type Times struct {
	Due  time.Time // when the active version is to be followed by the next; zero = on demand only
	Warn time.Time // from when it is due soon; zero when Due is

	began time.Time // when the version became active
}

// Times of the active version of a key, under the policies that hold for it. schedule answers the first time after t that
// e.Schedule names, the zero time when there is none; it may be nil while e.Schedule is empty. A key without an active
// version is never due.
func (k Key) Times(e Effective, schedule func(t time.Time) time.Time) Times {
	v, ok := k.Active()
	if !ok {
		return Times{}
	}
	return ActiveVersion{
		ByPolicy: k.ByPolicy, Period: k.Cryptoperiod.Period, Warn: k.Cryptoperiod.Warn, Activated: v.Activated,
	}.Times(e, schedule)
}

// Times is Key.Times. What a key was made with is more specific than any policy but those that name the key.
func (v ActiveVersion) Times(e Effective, schedule func(t time.Time) time.Time) Times {
	period, warnAge := v.Period, v.Warn
	if v.ByPolicy || e.named["period"] {
		period, warnAge = e.Period, 0
	}
	t := Times{began: v.Activated}
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

// Overdue says whether the version should have been followed by now. One that was made in the future, by a clock that was
// wrong then, protects nothing (see Usable) and is followed at once, whatever its period.
func (t Times) Overdue(now time.Time) bool {
	return !t.Due.IsZero() && !now.Before(t.Due) || ahead(t.began, now)
}

// ahead says that a version became active at a time that hasn't come yet, by more than clocks may differ.
func ahead(activated, now time.Time) bool { return now.Before(activated.Add(-day)) }

// DueSoon says whether it is time to warn, and not too late yet.
func (t Times) DueSoon(now time.Time) bool {
	return !t.Due.IsZero() && now.Before(t.Due) && !now.Before(t.Warn)
}
