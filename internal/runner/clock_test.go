package runner

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/clock"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// A daily schedule goes on being served about once a day of time that really passes, whatever is done to the clock: there, and
// back again, by seconds or by years. A process whose machine has the only clock goes by one that doesn't go back, and serves no
// time twice; a database's clock is gone by as it is.
func TestSchedulesOverClockJumps(t *testing.T) {
	const day, hour = 24 * time.Hour, time.Hour
	begin := time.Date(2026, 3, 25, 12, 0, 0, 0, time.UTC) // Zurich goes to summer time four days later
	sizes := []time.Duration{time.Second, 59 * time.Second, 61 * time.Second, 5 * time.Minute, hour, 13 * hour, day, 7 * day, 31 * day, 366 * day, 3653 * day}
	tried := 0
	for _, zone := range []string{"UTC", "Europe/Zurich"} {
		for _, size := range sizes {
			for _, jump := range []time.Duration{size, -size} {
				for _, guarded := range []bool{true, false} {
					tried++
					t.Run(fmt.Sprintf("%s %v guarded %v", zone, jump, guarded), func(t *testing.T) {
						t.Parallel() // what takes time is the disk
						var passed, off time.Duration
						wall := func() time.Time { return begin.Add(passed + off) }
						now := wall
						if guarded {
							now = clock.New(wall, func() time.Duration { return passed }).Now
						}
						st := openStore(t)
						r := newRunner(t, st, Config{Exclusive: true, Clock: now}, &served{})
						change(t, st, func(tx store.Tx) error {
							return tx.PutSchedule(t.Context(), jobs.Schedule{Name: "daily", Kind: "check", Cron: "30 2 * * *", Zone: zone, NextRun: begin.Add(14*hour + hour/2)})
						})
						var at []time.Duration // when it was served, in time that really passed
						due := map[time.Time]bool{}
						last := ""
						for ; passed < 16*day; passed += hour {
							switch passed {
							case 5 * day: // at noon; the jumps by hours and minutes go over no time of the schedule
								off = jump
							case 10*day + 14*hour + hour: // 03:00, so a jump back of an hour goes over one
								off = 0
							}
							for range 2 {
								if _, err := r.fireDue(t.Context()); err != nil {
									t.Fatal(err)
								}
							}
							s := schedules(t, st)["daily"]
							if s.LastJob == last {
								continue
							}
							last, at = s.LastJob, append(at, passed)
							if due[s.LastRun] && guarded {
								t.Errorf("%v was served twice", s.LastRun)
							}
							due[s.LastRun] = true
							change(t, st, func(tx store.Tx) error { // its job ends
								_, err := tx.Save(t.Context(), read(t, st, s.LastJob).Obey(jobs.Cancel, now()))
								return err
							})
						}
						if len(at) < 13 || len(at) > 18 {
							t.Errorf("served %d times in 16 days: %v", len(at), at)
						}
						longest := 2*day + hour
						if !guarded {
							longest = 3 * day // what was just served isn't served again at once
						}
						for i := 1; i < len(at); i++ {
							if gap := at[i] - at[i-1]; gap > longest {
								t.Errorf("not served for %v, from %v on", gap, at[i-1])
							}
						}
					})
				}
			}
		}
	}
	t.Logf("schedules over jumps: %d cases", tried)
}
