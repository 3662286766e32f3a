package jobs

import (
	"encoding/json"
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
	// byWall says that hours are named: then a time that the clock skips in spring happens an hour later, and one that it
	// shows twice in autumn happens once. With "every hour" or "every minute" real time counts instead.
	byWall bool
}

// maxCron is the longest expression in bytes.
const maxCron = 128

// ParseCron reads an expression of five fields (minute, hour, day of month, month, day of week) or one of @hourly, @daily,
// @midnight, @weekly, @monthly, @yearly and @annually. Errors are of code invalid: an expression that isn't one, a zone
// that isn't known, and an expression that never comes true, such as the 31st of February.
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
	descriptor := len(fields) == 1 && strings.HasPrefix(text, "@") && !strings.HasPrefix(text, "@every")
	if len(text) > maxCron || len(fields) != 5 && !descriptor || strings.ContainsAny(text, "=\n\r") {
		return Cron{}, badCron("it has not five fields")
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return Cron{}, badCron("a field is not one of a cron expression")
	}
	c := Cron{schedule: s, zone: loc, byWall: descriptor && text != "@hourly" || !descriptor && !strings.Contains(fields[1], "*")}
	if c.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, badCron("it names a day that never comes")
	}
	return c, nil
}

func badCron(why string) error {
	return fault.New(api.CodeInvalid, "reading a cron expression: "+why).WithField("schedule").
		WithNext(`write minute, hour, day of month, month, day of week, such as "0 2 * * *" for every day at two`)
}

// Next is the first time after t, in UTC; zero when there is none within the next nine years.
func (c Cron) Next(t time.Time) time.Time {
	if !c.byWall {
		return utc(c.after(t.In(c.zone)))
	}
	// On the wall: t's own reading taken as if days were always 24 hours long. A reading that the zone skips is moved
	// forward by time.Date; of one that it shows twice the first counts.
	for wall := onWall(t.In(c.zone), time.UTC); ; {
		if wall = c.after(wall); wall.IsZero() {
			return time.Time{}
		}
		if at := onWall(wall, c.zone); at.After(t) {
			return utc(at)
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

// onWall is the time at which the zone's clock shows what t's shows: the first one where it shows it twice, which
// time.Date doesn't promise.
func onWall(t time.Time, zone *time.Location) time.Time {
	at := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
	_, before := at.Add(-3 * time.Hour).Zone()
	_, now := at.Zone()
	if first := at.Add(time.Duration(now-before) * time.Second); now < before && first.Hour() == at.Hour() && first.Minute() == at.Minute() {
		return first
	}
	return at
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
