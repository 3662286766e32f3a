package keys

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"pgregory.net/rapid"
)

func TestParsePeriod(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "0s": 0, "0m": 0, "0h": 0, "0d": 0, "90d": 90 * day, "1d": day, "36500d": MaxPeriod, "12h": 12 * time.Hour, "1d12h": 36 * time.Hour,
		"90m": 90 * time.Minute, "1s": time.Second, "1h30m": 90 * time.Minute, "1500ms": 1500 * time.Millisecond,
	} {
		got, err := ParsePeriod(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"90", "d", "00d", "-0s", "+0s", "0.1ns", "0ns", "-1d", "+1d", "1.5d", "90D", "90 d", " 90d", "90d ", "090d", "36501d", "99999999999d", "1d1d", "1w", "12h1d",
		"-12h", "00s", "99999999999999999999d", "+12h", "1ns", "999ms", "2562047h", "36500d1s", "9223372036854775807ns1h", "９0d", "1d-1h", "1d0h", "forever",
	} {
		if got, err := ParsePeriod(text); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "period" {
			t.Errorf("%q: accepted as %v (%v)", text, got, err)
		}
	}
}

// How long a version may protect has narrower bounds than a duration, and who is out of them is told those.
func TestParseCryptoperiod(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "0": 0, "0s": 0, "1h": time.Hour, "90d": 90 * day, "730d": MaxCryptoperiod} {
		if got, err := ParseCryptoperiod(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"1s", "59m59s", "1ns", "730d1s", "36501d", "99999999999d", "2562047h"} {
		_, err := ParseCryptoperiod(text)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "period" || err.Error() != "the period is not between one hour and 730 days" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFormatPeriod(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"": 0, "90d": 90 * day, "36h": 36 * time.Hour, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "1m30s": 90 * time.Second,
		"30m": 30 * time.Minute, "10m": 10 * time.Minute, "20h": 20 * time.Hour, "1s": time.Second, "1h0m1s": time.Hour + time.Second,
	} {
		if got := FormatPeriod(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestPeriodRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(MinPeriod), int64(MaxPeriod)).Draw(rt, "period"))
		if rapid.Bool().Draw(rt, "whole") {
			d = d.Truncate(time.Hour) + time.Hour
		}
		d = min(d, MaxPeriod)
		got, err := ParsePeriod(FormatPeriod(d))
		if err != nil || got != d {
			rt.Fatalf("%v became %q became %v (%v)", d, FormatPeriod(d), got, err)
		}
	})
}

func TestCryptoperiodByAge(t *testing.T) {
	k := newTestKey(t, Spec{Cryptoperiod: Cryptoperiod{Period: 90 * day}})
	start := k.Versions[0].Activated
	week := Effective{Warn: 7 * day}
	for _, c := range []struct {
		age           time.Duration
		soon, overdue bool
	}{
		{0, false, false}, {83*day - 1, false, false}, {83 * day, true, false}, {90*day - 1, true, false}, {90 * day, false, true}, {900 * day, false, true},
	} {
		now := start.Add(c.age)
		if times := k.Times(week, nil); times.DueSoon(now) != c.soon || times.Overdue(now) != c.overdue {
			t.Errorf("at %v: due soon %v, overdue %v", c.age, times.DueSoon(now), times.Overdue(now))
		}
		if _, err := k.MayProtect(now); err != nil {
			t.Errorf("at %v: age alone refused: %v", c.age, err)
		}
	}
	k.Cryptoperiod.Warn = 10 * day
	if !k.Times(week, nil).DueSoon(start.Add(10 * day)) {
		t.Error("the key's own warning age is ignored")
	}
	unlimited := newTestKey(t, Spec{})
	if times := unlimited.Times(Effective{Period: day}, nil); times.Overdue(start.Add(1000*day)) || times.DueSoon(start.Add(1000*day)) {
		t.Error("a key that was made without a period is overdue")
	}
	mustMove(t, &k, 1, Deactivated, 0)
	if k.Times(week, nil).Overdue(start.Add(1000 * day)) {
		t.Error("a disabled key is overdue")
	}
}

func TestCryptoperiodByUse(t *testing.T) {
	k := newTestKey(t, Spec{Cryptoperiod: Cryptoperiod{MaxOperations: 10, MaxBytes: 1000}})
	for _, c := range []struct {
		ops, bytes uint64
		ok         bool
	}{{0, 0, true}, {9, 999, true}, {10, 0, false}, {0, 1000, false}, {11, 0, false}, {1 << 63, 1 << 63, false}} {
		k.Versions[0].Operations, k.Versions[0].Bytes = c.ops, c.bytes
		_, err := k.MayProtect(testNow)
		if (err == nil) != c.ok || err != nil && fault.CodeOf(err) != api.CodeLimit {
			t.Errorf("%d operations, %d bytes: %v", c.ops, c.bytes, err)
		}
		if _, err := k.Usable(testNow); err != nil {
			t.Errorf("Usable looks at counters: %v", err)
		}
		if _, err := k.MayProcess(1, false); err != nil {
			t.Errorf("a limit stops opening: %v", err)
		}
	}
}

func TestClockFarBehindRefuses(t *testing.T) {
	k := newTestKey(t, Spec{})
	if _, err := k.MayProtect(testNow.Add(-time.Hour)); err != nil {
		t.Errorf("an hour behind: %v", err)
	}
	if _, err := k.MayProtect(testNow.Add(-25 * time.Hour)); fault.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("more than a day behind: %v", err)
	}
}

func TestCryptoperiodBounds(t *testing.T) {
	for _, c := range []Cryptoperiod{{Period: -1}, {Period: 1}, {Period: time.Hour + 1}, {Period: time.Hour - time.Second}, {Period: MaxCryptoperiod + time.Second}, {Period: MaxPeriod + 1}, {Warn: 1}, {Period: day, Warn: 2 * day}, {Period: day, Warn: -1}} {
		if _, err := NewKey(testID, Spec{Name: "x", Cryptoperiod: c}, testNow); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
