package jobs

import (
	"archive/zip"
	"encoding/json"
	"go/build"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

func mustCron(t testing.TB, text, zone string) Cron {
	t.Helper()
	c, err := ParseCron(text, zone)
	if err != nil {
		t.Fatalf("%q in %q: %v", text, zone, err)
	}
	return c
}

func TestBadCron(t *testing.T) {
	for _, text := range []string{
		"", " ", "0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "60 * * * *", "* * * *", "* * * * * *", "@every 1s", "@reboot", "@",
		"TZ=UTC 0 0 * * *", "CRON_TZ=Europe/Zurich 0 0 * * *", "0 0 * * *\n", "0 0 * * MOON", "1-0 * * * *", "*/0 * * * *",
		"00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 0 * * *",
	} {
		if _, err := ParseCron(text, ""); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "schedule" {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, zone := range []string{"Local", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "+02:00"} {
		if _, err := ParseCron("0 0 * * *", zone); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "zone" {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
	for _, text := range []string{"0 0 1 * *", "0 2 * * *", "0 */4 * * *", "* * * * *", "0 0 29 2 *", "@monthly", "@hourly", "0 0 * * SUN", "30 1 1,15 * *"} {
		mustCron(t, text, "")
	}
}

// What is wrong is said so that it can be mended.
func TestBadCronSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]struct{ says, next string }{
		"60 * * * *":             {"the minute takes 0 to 59", "write minute, hour"},
		"* 24 * * *":             {"the hour takes 0 to 23", ""},
		"* * 0 * *":              {"the day of month takes 1 to 31", ""},
		"* * * 13 *":             {"the month takes 1 to 12 or JAN to DEC", ""},
		"0 0 * * 8":              {"the day of week takes 0 to 7 or SUN to SAT", ""},
		"0 0 * * 7/x":            {"the day of week takes", ""},
		"0 0 * * 7-3":            {"the day of week takes", ""},
		"61 25 * * *":            {"the minute takes 0 to 59, and *, ranges, lists and steps; the hour takes 0 to 23", ""},
		"* * * *":                {"it has not five fields but 4", ""},
		"@every 5m":              {"@every is not supported", "*/5 * * * *"},
		"@reboot":                {"the word after @ is not known", "@daily"},
		"TZ=UTC 0 0 * * *":       {"a time zone inside of it is not supported", "--zone"},
		" CRON_TZ=UTC 0 0 * * *": {"a time zone inside of it is not supported", "--zone"},
		"0 0 31 2 *":             {"a day that never comes", ""},
	} {
		_, err := ParseCron(text, "")
		if err == nil || !strings.Contains(err.Error(), want.says) || !strings.Contains(fault.NextOf(err), want.next) {
			t.Errorf("%q: %v; %s", text, err, fault.NextOf(err))
		}
	}
}

// Sunday is 0 and 7, as in every other cron.
func TestSundayIsSeven(t *testing.T) {
	for text, same := range map[string]string{
		"0 0 * * 7": "0 0 * * 0", "0 0 * * 5-7": "0 0 * * 0,5,6", "0 0 * * 0-7": "0 0 * * *", "0 0 * * 1-7/2": "0 0 * * 0,1,3,5", "0 0 * * 3,7": "0 0 * * 0,3",
		"0 0 * * 7-7": "0 0 * * 0", "0 0 * * 7/2": "0 0 * * 0", "0 0 * * Sat-7": "0 0 * * 0,6", "0 0 * * 6-7/9223372036854775807": "0 0 * * 6", "0 0 13 * 7": "0 0 13 * 0",
	} {
		a, b := mustCron(t, text, "Europe/Zurich"), mustCron(t, same, "Europe/Zurich")
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 60 {
			if next := a.Next(at); !next.Equal(b.Next(at)) {
				t.Errorf("%q after %v: %v, and %q: %v", text, at, next, same, b.Next(at))
				break
			}
			at = b.Next(at)
		}
	}
}

// Days on which a zone's clocks are changed: a named hour that is skipped comes an hour later, one that is shown twice
// counts once, and what is to happen every hour or minute does so in real time.
func TestCronOnDaysThatClocksChange(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, c := range map[string]struct{ cron, after, want string }{
		"an hour that is skipped":       {"30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		"the day after it":              {"30 2 * * *", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"},
		"an hour that is shown twice":   {"30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		"not again in its second time":  {"30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		"every half hour, in real time": {"*/30 * * * *", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"},
		"monthly in the zone":           {"0 0 1 * *", "2026-03-15T00:00:00Z", "2026-04-01T00:00:00+02:00"},
	} {
		if got, want := mustCron(t, c.cron, "Europe/Zurich").Next(at(c.after)), at(c.want); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %v, want %v", name, got, want.UTC())
		}
	}
	for name, c := range map[string]struct{ cron, zone, after, want string }{
		"west of Greenwich":                     {"15 2 * * *", "America/New_York", "2026-03-07T12:00:00-05:00", "2026-03-08T03:15:00-04:00"},
		"the hour before it is its own":         {"15 1,2 * * *", "America/New_York", "2026-03-08T01:15:00-05:00", "2026-03-08T03:15:00-04:00"},
		"the second of an hour":                 {"0,15 2 * * *", "America/New_York", "2026-03-08T03:00:00-04:00", "2026-03-08T03:15:00-04:00"},
		"midnight, on its own day":              {"15 0 * * *", "America/Santiago", "2026-09-05T12:00:00-04:00", "2026-09-06T01:15:00-03:00"},
		"midnight in Havana":                    {"15 0 * * *", "America/Havana", "2026-03-07T12:00:00-05:00", "2026-03-08T01:15:00-04:00"},
		"what was not skipped may come earlier": {"15,40 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T02:40:00+11:00"},
		"and then what was":                     {"15,40 2 * * *", "Australia/Lord_Howe", "2026-10-04T02:40:00+11:00", "2026-10-04T02:45:00+11:00"},
	} {
		if got, want := mustCron(t, c.cron, c.zone).Next(at(c.after)), at(c.want); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", name, got, want.UTC())
		}
	}
}

// clocks is every zone that the Go toolchain knows whose clock is changed between two times, with the changes; of zones that
// are changed alike one.
func clocks(t *testing.T, from, to time.Time) map[*time.Location][]time.Time {
	t.Helper()
	list, err := zip.OpenReader(filepath.Join(build.Default.GOROOT, "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatalf("the toolchain's list of time zones: %v", err)
	}
	defer list.Close()
	found, seen := map[*time.Location][]time.Time{}, map[string]bool{}
	for _, f := range list.File {
		zone, err := time.LoadLocation(f.Name)
		if err != nil {
			continue // a folder
		}
		var changes []time.Time
		alike := ""
		for _, end := from.In(zone).ZoneBounds(); !end.IsZero() && end.Before(to); _, end = end.ZoneBounds() {
			changes = append(changes, end)
			alike += end.Add(-1).Format(time.RFC3339) + end.Format(time.RFC3339)
		}
		if len(changes) > 0 && !seen[alike] {
			found[zone], seen[alike] = changes, true
		}
	}
	return found
}

// Wherever clocks are changed: every time that is named happens once, at the first moment that the clock shows it, and one that
// the clock jumps over as much later as it jumps, never before. What is expected is read off the clock, quarter by quarter.
func TestCronWhereverClocksChange(t *testing.T) {
	day := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	tried := 0
	for _, years := range [][2]int{{2011, 2012}, {2025, 2028}} { // in 2011 Samoa jumped over a whole day
		for zone, changes := range clocks(t, day(years[0]), day(years[1])) {
			for _, change := range changes {
				tried++
				checkClock(t, zone, change)
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d changes", tried)
	}
}

func checkClock(t *testing.T, zone *time.Location, change time.Time) {
	t.Helper()
	const quarter, reach = 15 * time.Minute, 30 * time.Hour
	from, to := change.Add(-reach).Truncate(quarter), change.Add(reach).Truncate(quarter)
	shown := map[time.Time]time.Time{} // what a clock shows -> when first
	for at := from.Add(quarter); !at.After(to); at = at.Add(quarter) {
		if wall := onClock(at.In(zone)); shown[wall].IsZero() {
			shown[wall] = at
		}
	}
	_, offset := change.Add(-1).In(zone).Zone()
	begin, end := onClock(from.In(zone)), onClock(to.In(zone))
	for _, text := range []string{"*/15 0-23 * * *", "15 2 * * *", "15 0 * * *", "15 1,2 * * *", "15,45 2 * * *", "15,45 0,1 * * *", "30 2,3 * * *", "45 23 * * *", "0 0 * * *"} {
		c := mustCron(t, text, zone.String())
		var want []time.Time
		for wall := c.schedule.Next(begin); !wall.After(end); wall = c.schedule.Next(wall) {
			at, ok := shown[wall]
			if !ok {
				at = wall.Add(-time.Duration(offset) * time.Second) // as if the clock had gone on
			}
			if want = append(want, at); onClock(at.In(zone)).Before(wall) {
				t.Fatalf("the test expects %v before its time", wall)
			}
		}
		slices.SortFunc(want, time.Time.Compare)
		want = slices.CompactFunc(want, time.Time.Equal)
		var got []time.Time
		for at := c.Next(from); !at.After(to); at = c.Next(at) {
			got = append(got, at)
		}
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Errorf("%q in %v around %v:\n%v, want\n%v", text, zone, change, got, want)
		}
	}
}

// From one leap day to the next may be eight years.
func TestCronOverALeapDayThatIsMissing(t *testing.T) {
	c := mustCron(t, "0 0 29 2 *", "")
	if got, want := c.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC)), time.Date(2104, 2, 29, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Whatever the expression, the zone and the time: the next time is later, and the one after it later still.
func TestCronGoesForward(t *testing.T) {
	crons := []Cron{mustCron(t, "30 2 * * *", "America/New_York"), mustCron(t, "*/20 0,1,2 * * *", "America/Havana"), mustCron(t, "* * * * *", "Australia/Lord_Howe"), mustCron(t, "0 0 29 2 *", ""), mustCron(t, "15 */3 * * 1-5", "Asia/Kathmandu")}
	rapid.Check(t, func(rt *rapid.T) {
		c := crons[rapid.IntRange(0, len(crons)-1).Draw(rt, "cron")]
		from := time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(rt, "from"), 0)
		next := c.Next(from)
		if !next.After(from) || !c.Next(next).After(next) || !c.Next(next.Add(-1)).Equal(next) {
			rt.Fatalf("after %v comes %v, then %v", from, next, c.Next(next))
		}
	})
}

// What was missed while nobody looked is served once, for the latest time.
func TestMissed(t *testing.T) {
	day := time.Date(2026, 5, 1, 2, 0, 0, 0, time.UTC)
	s := Schedule{Name: "rotation-check", Kind: "check", Cron: "0 2 * * *", NextRun: day, Args: []byte(`{"x":1}`)}
	for name, c := range map[string]struct{ now, due, next time.Time }{
		"on time":        {day, day, day.AddDate(0, 0, 1)},
		"a minute late":  {day.Add(time.Minute), day, day.AddDate(0, 0, 1)},
		"ten days late":  {day.AddDate(0, 0, 10).Add(time.Hour), day.AddDate(0, 0, 10), day.AddDate(0, 0, 11)},
		"ten years late": {day.AddDate(10, 0, 0).Add(time.Hour), day.AddDate(10, 0, 0).Add(time.Hour), day.AddDate(10, 0, 1)},
	} {
		due, next, err := s.Missed(c.now)
		if err != nil || !due.Equal(c.due) || !next.Equal(c.next) {
			t.Errorf("%s: due %v, next %v, %v; want %v, %v", name, due, next, err, c.due, c.next)
		}
	}
	j, err := s.Job(day)
	var args Scheduled
	if err != nil || json.Unmarshal(j.Args, &args) != nil || args.Schedule != s.Name || !args.Due.Equal(day) || string(args.Args) != `{"x":1}` || j.UniqueKey == "" {
		t.Errorf("its job: %+v %v", j, err)
	}
}
