package keys

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func ptr[T any](v T) *T { return &v }

// What a store does when nobody has set anything: the issue's own figures.
func TestShippedPolicies(t *testing.T) {
	for _, c := range []struct {
		environment string
		purpose     Purpose
		want        Effective
	}{
		{"production", PurposeData, Effective{Period: 90 * day, Warn: 7 * day, Concurrency: 5, BatchSize: 200, Attempts: 3}},
		{"some-other", PurposeData, Effective{Period: 90 * day, Warn: 7 * day, Concurrency: 5, BatchSize: 200, Attempts: 3}},
		{"staging", PurposeData, Effective{Period: 30 * day, Warn: 7 * day, Concurrency: 5, BatchSize: 200, Attempts: 3}},
		{"development", PurposeData, Effective{Period: 0, Warn: 7 * day, Concurrency: 5, BatchSize: 200, Attempts: 3}},
		{"production", PurposePHI, Effective{Period: 90 * day, Schedule: "0 0 1 * *", Zone: "UTC", Grace: 7 * day, Reencrypt: true, Warn: 7 * day, Concurrency: 5, BatchSize: 200, Attempts: 3}},
	} {
		got := Resolve(ShippedPolicies(), "k", c.purpose, c.environment)
		got.From, got.named, got.shipped = nil, nil, nil
		if !equalEffective(got, c.want) {
			t.Errorf("%s, %s: %+v, want %+v", c.environment, c.purpose, got, c.want)
		}
	}
	for _, p := range ShippedPolicies() {
		if err := p.Validate(); err != nil {
			t.Errorf("policy %s that is shipped: %v", p.Name, err)
		}
	}
}

func equalEffective(a, b Effective) bool {
	return a.Period == b.Period && a.Grace == b.Grace && a.Warn == b.Warn && a.Schedule == b.Schedule && a.Zone == b.Zone &&
		a.Reencrypt == b.Reencrypt && a.Concurrency == b.Concurrency && a.BatchSize == b.BatchSize && a.Attempts == b.Attempts
}

// Each field comes from the most specific policy that says it, whatever the order in which they are read.
func TestResolveTakesEachFieldFromTheMostSpecific(t *testing.T) {
	all := append(ShippedPolicies(),
		Policy{Name: "yaml", Origin: OriginConfig, Rule: Rule{Period: ptr(80 * day), Attempts: 7}},
		Policy{Name: "all", Origin: OriginSet, Rule: Rule{Period: ptr(70 * day)}},
		Policy{Name: "env", Environment: "production", Origin: OriginSet, Rule: Rule{Warn: ptr(3 * day), BatchSize: 10}},
		Policy{Name: "purpose", Purpose: PurposePHI, Origin: OriginSet, Rule: Rule{Schedule: ptr(""), BatchSize: 20}},
		Policy{Name: "both", Purpose: PurposePHI, Environment: "production", Origin: OriginSet, Rule: Rule{Grace: ptr(time.Hour)}},
		Policy{Name: "key", Key: "k", Origin: OriginSet, Rule: Rule{Reencrypt: ptr(false), Zone: "Europe/Zurich"}},
		Policy{Name: "other", Key: "other", Origin: OriginSet, Rule: Rule{Period: ptr(day)}},
		Policy{Name: "elsewhere", Purpose: PurposePHI, Environment: "staging", Origin: OriginSet, Rule: Rule{Period: ptr(day)}},
	)
	want := Effective{Period: 70 * day, Grace: time.Hour, Warn: 3 * day, Zone: "Europe/Zurich", Concurrency: 5, BatchSize: 20, Attempts: 3}
	from := map[string]string{"period": "all", "grace": "both", "warn": "env", "schedule": "purpose", "zone": "key", "reencrypt": "key",
		"concurrency": "phi", "batchSize": "purpose", "attempts": "phi"}
	for range 50 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		got := Resolve(all, "k", PurposePHI, "production")
		if !equalEffective(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		for field, policy := range from {
			if got.From[field] != policy {
				t.Errorf("%s comes from %q, want %q", field, got.From[field], policy)
			}
		}
	}
}

func TestBadPolicies(t *testing.T) {
	long := strings.Repeat("x", 65)
	for field, p := range map[string]Policy{
		"name":         {Name: "Not a name", Rule: Rule{Attempts: 1}},
		"key":          {Name: "p", Key: "a/b", Rule: Rule{Attempts: 1}},
		"purpose":      {Name: "p", Purpose: "PHI", Rule: Rule{Attempts: 1}},
		"environment":  {Name: "p", Environment: long, Rule: Rule{Attempts: 1}},
		"environment ": {Name: "p", Environment: "prod\n\x1b[31m", Rule: Rule{Attempts: 1}},
		"period":       {Name: "p", Rule: Rule{Period: ptr(time.Hour - 1)}},
		"grace":        {Name: "p", Rule: Rule{Grace: ptr(-day)}},
		"warn":         {Name: "p", Rule: Rule{Warn: ptr(MaxCryptoperiod + 1)}},
		"warn ":        {Name: "p", Rule: Rule{Period: ptr(day), Warn: ptr(day)}},
		"concurrency":  {Name: "p", Rule: Rule{Concurrency: 17}},
		"batchSize":    {Name: "p", Rule: Rule{BatchSize: -1}},
		"attempts":     {Name: "p", Rule: Rule{Attempts: 21}},
		"policy":       {Name: "p"},
	} {
		if err := p.Validate(); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != strings.TrimSpace(field) {
			t.Errorf("a bad %s: %v (field %q)", field, err, fault.FieldOf(err))
		}
	}
	for _, d := range []time.Duration{time.Hour, MaxCryptoperiod, 0} {
		if err := (Policy{Name: "p", Rule: Rule{Period: &d}}).Validate(); err != nil {
			t.Errorf("a period of %v: %v", d, err)
		}
	}
	over := MaxCryptoperiod + time.Microsecond
	err := Policy{Name: "p", Rule: Rule{Period: &over}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "one hour and 730 days") {
		t.Errorf("a period beyond the limit: %v does not say the limit", err)
	}
}

// What a key was made with is more specific than policies that don't name it; one that does is more specific still.
func TestWhoDecidesWhenAKeyIsDue(t *testing.T) {
	monthly := func(at time.Time) time.Time { return time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC) }
	start := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	rule := func(key string, r Rule) Effective {
		return Resolve(append(ShippedPolicies(), Policy{Name: "mine", Key: key, Purpose: PurposePHI, Origin: OriginSet, Rule: r}), "k", PurposePHI, "production")
	}
	byPolicy, own := ActiveVersion{ByPolicy: true, Activated: start}, ActiveVersion{Cryptoperiod: Cryptoperiod{Period: 60 * day}, Activated: start}
	for name, c := range map[string]struct {
		v    ActiveVersion
		e    Effective
		want time.Time
	}{
		"shipped: the first of the month":           {byPolicy, Resolve(ShippedPolicies(), "k", PurposePHI, "production"), start.AddDate(0, 0, 17)},
		"a period shorter than the schedule":        {byPolicy, rule("", Rule{Period: ptr(5 * day)}), start.Add(5 * day)},
		"its own period beats the purpose's":        {own, rule("", Rule{Period: ptr(5 * day)}), start.Add(60 * day)},
		"its own period beats the purpose's months": {own, Resolve(ShippedPolicies(), "k", PurposePHI, "production"), start.Add(60 * day)},
		"a policy that names it beats its own":      {own, rule("k", Rule{Period: ptr(5 * day)}), start.Add(5 * day)},
		"a schedule that names it counts too":       {own, rule("k", Rule{Schedule: ptr("0 0 1 * *")}), start.AddDate(0, 0, 17)},
		"on demand":                                 {byPolicy, rule("k", Rule{Period: ptr(time.Duration(0)), Schedule: ptr("")}), time.Time{}},
	} {
		if got := c.v.Times(c.e, monthly); !got.Due.Equal(c.want) {
			t.Errorf("%s: due %v, want %v", name, got.Due, c.want)
		}
	}
	short := byPolicy.Times(rule("k", Rule{Period: ptr(6 * time.Hour), Schedule: ptr("")}), nil)
	if want := start.Add(5 * time.Hour); !short.Warn.Equal(want) {
		t.Errorf("a warning of seven days for a life of six hours: from %v, want %v", short.Warn, want)
	}
	said := byPolicy.Times(rule("k", Rule{Period: ptr(time.Hour), Schedule: ptr(""), Warn: ptr(55 * time.Minute)}), nil)
	if want := start.Add(5 * time.Minute); !said.Warn.Equal(want) {
		t.Errorf("a warning of 55 minutes for a life of an hour, that somebody said: from %v, want %v", said.Warn, want)
	}
}

// A schedule is meant in its own zone, UTC unless its policy says another; who says only a zone means the schedule that holds.
func TestZoneGoesWithItsSchedule(t *testing.T) {
	wide := Policy{Name: "wide", Origin: OriginSet, Rule: Rule{Schedule: ptr("0 1 * * *"), Zone: "Europe/Zurich"}}
	for _, c := range []struct {
		narrow             Rule
		zone, from, chosen string
	}{
		{Rule{Schedule: ptr("0 2 * * *")}, "UTC", "narrow", "narrow"},
		{Rule{Schedule: ptr("0 2 * * *"), Zone: "Asia/Tokyo"}, "Asia/Tokyo", "narrow", "narrow"},
		{Rule{Zone: "Asia/Tokyo"}, "Asia/Tokyo", "narrow", "wide"},
		{Rule{Attempts: 1}, "Europe/Zurich", "wide", "wide"},
	} {
		e := Resolve([]Policy{wide, {Name: "narrow", Key: "k", Origin: OriginSet, Rule: c.narrow}}, "k", PurposeData, "production")
		if e.Zone != c.zone || e.From["zone"] != c.from || e.From["schedule"] != c.chosen {
			t.Errorf("%+v: zone %s of %s, schedule of %s", c.narrow, e.Zone, e.From["zone"], e.From["schedule"])
		}
	}
}
