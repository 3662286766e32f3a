package jobs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Schedule is a standing order: at every time that Cron names, in Zone, a job of Kind is due. Its row is the truth about
// what was served already: whoever moves NextRun forward, by compare-and-swap, makes the job in the same transaction, so
// it is made once however many nodes look. Times that passed while nobody looked are served by one job, for the latest of
// them.
type Schedule struct {
	Name    string // unique, e.g. "rotation-check"
	Kind    string // of the jobs that it makes
	Args    []byte // JSON for the handler, inside of [Scheduled]; never a secret
	Cron    string // see ParseCron
	Zone    string // an IANA time zone; empty = UTC
	Origin  string // who wants it: "shipped", "keyturn.yaml" or "policy/NAME"
	NextRun time.Time
	LastRun time.Time // the time that was served last, not when that happened; zero = never
	LastJob string    // the job that served it
}

// RotationCheck names the schedule whose jobs look for keys that are due. A key that is due before its next time brings it
// forward, in whatever room that is noticed.
const RotationCheck = "rotation-check"

// Scheduled is what a job that a schedule made finds in its Args.
type Scheduled struct {
	Schedule string          `json:"schedule"`
	Due      time.Time       `json:"due"`
	Args     json.RawMessage `json:"args,omitempty"`
}

// Job is the job that serves the schedule's due time. One that was made for an earlier time and hasn't ended yet serves
// this one too.
func (s Schedule) Job(due time.Time) (Job, error) {
	args, err := json.Marshal(Scheduled{Schedule: s.Name, Due: due, Args: s.Args})
	if err != nil {
		return Job{}, fault.Wrap(api.CodeInternal, err, "writing the arguments of a scheduled job")
	}
	subject := "schedule/" + s.Name
	return Job{Kind: s.Kind, Subject: subject, UniqueKey: subject, Args: args, Actor: "system"}, nil
}

// Missed is the latest time up to now that the schedule names, at or after NextRun: what is to be served now. next is the
// first one after now. Both are zero when the schedule names no time in the years to come.
func (s Schedule) Missed(now time.Time) (due, next time.Time, err error) {
	c, err := ParseCron(s.Cron, s.Zone)
	if err != nil {
		return due, next, err
	}
	const most = 1000 // steps from one firing to the next; beyond that the latest one doesn't matter to the minute
	due = s.NextRun
	for range most {
		if next = c.Next(due); next.IsZero() || next.After(now) {
			return due, next, nil
		}
		due = next
	}
	return now, c.Next(now), nil
}

// Latest is the latest time that NextRun can have at now: one of the schedule's times may have been served ahead of now, because a
// clock was set back, but what lies behind the one after that was written by a clock that was wrong, or by other hands. Zero when the
// schedule names no such time.
func (s Schedule) Latest(now time.Time) (time.Time, error) {
	c, err := ParseCron(s.Cron, s.Zone)
	if err != nil {
		return time.Time{}, err
	}
	next := c.Next(now)
	if next.IsZero() {
		return next, nil
	}
	return c.Next(next), nil
}

// Cron is when something is to happen: minutes of the clock on the wall of a time zone.
type Cron struct {
	schedule cron.Schedule
	zone     *time.Location
	// byWall says that hours are named: then a time that the clock jumps over in spring happens as much later as it jumps, an
	// hour nearly everywhere, and one that it shows twice in autumn happens once. With "every hour" or "every minute" real time counts instead.
	byWall bool
}

// maxCron is the longest expression in bytes.
const maxCron = 128

// cronFields are the fields of an expression, with what each takes.
var cronFields = [5]struct{ name, takes string }{
	{"minute", "0 to 59"}, {"hour", "0 to 23"}, {"day of month", "1 to 31"}, {"month", "1 to 12 or JAN to DEC"}, {"day of week", "0 to 7 or SUN to SAT, 0 and 7 for Sunday"},
}

// ParseCron reads an expression of five fields (minute, hour, day of month, month, day of week) or one of @hourly, @daily,
// @midnight, @weekly, @monthly, @yearly and @annually. Sunday is 0 and 7. Errors are of code invalid: an expression that isn't
// one, a zone that isn't known, and an expression that never comes true, such as the 31st of February.
func ParseCron(text, zone string) (Cron, error) {
	if zone == "" {
		zone = "UTC"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" || strings.HasPrefix(zone, "/") {
		return Cron{}, fault.New(api.CodeInvalid, "the time zone is not known").WithField("zone").
			WithNext("name one such as Europe/Zurich or America/New_York, or leave it out for UTC")
	}
	fields := strings.Fields(text)
	s, err := parseFields(text, fields)
	if err != nil {
		return Cron{}, err
	}
	descriptor := len(fields) == 1
	c := Cron{schedule: s, zone: loc, byWall: descriptor && text != "@hourly" || !descriptor && !strings.Contains(fields[1], "*")}
	if c.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, badCron("it names a day that never comes")
	}
	return c, nil
}

// parseFields gives the library what it reads as everybody else does, and says what is wrong where it wouldn't.
func parseFields(text string, fields []string) (cron.Schedule, error) {
	switch {
	case len(text) > maxCron:
		return nil, badCron(fmt.Sprintf("it is longer than %d bytes", maxCron))
	case strings.ContainsAny(text, "\n\r"):
		return nil, badCron("it is not one line")
	case len(fields) > 0 && (strings.HasPrefix(fields[0], "TZ=") || strings.HasPrefix(fields[0], "CRON_TZ=")):
		return nil, badCron("a time zone inside of it is not supported").WithNext("name the zone beside it: --zone, or zone in keyturn.yaml")
	case strings.HasPrefix(text, "@every"):
		return nil, badCron("@every is not supported").WithNext(`write the times in five fields, such as "*/5 * * * *" for every five minutes`)
	case strings.HasPrefix(text, "@"):
		s, err := cron.ParseStandard(text)
		if err != nil || len(fields) != 1 {
			return nil, badCron("the word after @ is not known").
				WithNext("take one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually, or write five fields")
		}
		return s, nil
	case len(fields) != len(cronFields):
		return nil, badCron(fmt.Sprintf("it has not five fields but %d", len(fields)))
	}
	fields = slices.Clone(fields)
	fields[4] = sevenAsSunday(fields[4])
	var wrong []string
	for i, f := range cronFields {
		alone := []string{"*", "*", "*", "*", "*"}
		alone[i] = fields[i]
		if _, err := cron.ParseStandard(strings.Join(alone, " ")); err != nil {
			wrong = append(wrong, "the "+f.name+" takes "+f.takes+", and *, ranges, lists and steps")
		}
	}
	if wrong != nil {
		return nil, badCron(strings.Join(wrong, "; "))
	}
	return cron.ParseStandard(strings.Join(fields, " "))
}

// sevenAsSunday writes days of the week without the 7, which the library doesn't know for Sunday. What it can't read is left for the
// library to refuse.
func sevenAsSunday(field string) string {
	parts := strings.Split(field, ",")
	for i, part := range parts {
		days, step, stepped := strings.Cut(part, "/")
		from, to, ranged := strings.Cut(days, "-")
		if !ranged {
			to = from
		}
		first := slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, strings.ToLower(from))
		by, err := 1, error(nil)
		if first < 0 {
			first, err = strconv.Atoi(from)
		}
		if err == nil && stepped {
			by, err = strconv.Atoi(step)
		}
		if to != "7" || err != nil || first < 0 || first > 7 || by < 1 {
			continue
		}
		var list []string
		for day := first; day <= 7; day += min(by, 7) {
			list = append(list, strconv.Itoa(day%7))
		}
		parts[i] = strings.Join(list, ",")
	}
	return strings.Join(parts, ",")
}

func badCron(why string) *fault.Error {
	return fault.New(api.CodeInvalid, "reading a cron expression: "+why).WithField("schedule").
		WithNext(`write minute, hour, day of month, month, day of week, such as "0 2 * * *" for every day at two`)
}

// Next is the first time after t, in UTC; zero when there is none within the next nine years.
func (c Cron) Next(t time.Time) time.Time {
	if !c.byWall {
		return utc(c.after(t.In(c.zone)))
	}
	// On the wall: t's own reading, taken as if days were always 24 hours long. In the hour after a jump, times that were jumped
	// over are still to come. Behind one of them may stand a time that was not and comes before it.
	var best time.Time
	for wall := onClock(t.In(c.zone)).Add(-jumped(t.In(c.zone))); ; {
		if wall = c.after(wall); wall.IsZero() || !best.IsZero() && !wall.Before(onClock(best)) {
			return utc(best)
		}
		at := onWall(wall, c.zone)
		if at.After(t) && (best.IsZero() || at.Before(best)) {
			if best = at; onClock(at).Equal(wall) {
				return utc(best)
			}
		}
	}
}

// after is the library's next time. The library looks at five years, and there are eight from the 29th of February 2096 to the
// one of 2104.
func (c Cron) after(t time.Time) time.Time {
	next := c.schedule.Next(t)
	if next.IsZero() {
		next = c.schedule.Next(t.AddDate(4, 0, 0)) // nothing lies between: that was looked at
	}
	return next
}

// onWall is the time at which the zone's clock shows wall: the first one where it shows it twice, and where it jumps over it
// as much later as it jumps. time.Date promises neither: west of Greenwich a time that is jumped over comes out too early.
func onWall(wall time.Time, zone *time.Location) time.Time {
	at := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	if short := wall.Sub(onClock(at)); short != 0 {
		return at.Add(max(0, short))
	}
	start, jump := change(at)
	if first := at.Add(jump); jump < 0 && first.Before(start) {
		return first
	}
	return at
}

// onClock is what the clock of t's zone shows, taken as UTC.
func onClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// jumped is how far the clock of t's zone jumped forward, if it did that so shortly before t that times it jumped over may still
// be to come, and 0 otherwise.
func jumped(t time.Time) time.Duration {
	if start, jump := change(t); jump > 0 && t.Before(start.Add(jump)) {
		return jump
	}
	return 0
}

// change is when the clock of t's zone was changed last, up to t, and by how much: forward is positive.
func change(t time.Time) (start time.Time, jump time.Duration) {
	if start, _ = t.ZoneBounds(); start.IsZero() {
		return start, 0
	}
	_, before := start.Add(-1).Zone()
	_, now := t.Zone()
	return start, time.Duration(now-before) * time.Second
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
