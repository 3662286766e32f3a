package keys

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Cryptoperiod is how long a version may protect data: by age, by operations, by bytes, whichever comes first. 0 means
// no limit of that sort.
type Cryptoperiod struct {
	Period        time.Duration // age at which the key is overdue; encryption goes on
	Warn          time.Duration // age from which the key is due soon; 0 = what the policies say
	MaxOperations uint64        // protections per version; refused beyond
	MaxBytes      uint64        // plaintext bytes per version; refused beyond
}

const (
	day = 24 * time.Hour
	// MinCryptoperiod and MaxCryptoperiod bound how long a version protects, whoever says it: a policy, or who makes the key.
	// Two years are the most for a symmetric data-encryption key in SP 800-57 part 1 section 5.3.6 table 1. An hour is what a
	// rotation with its re-encryption wants to have time for; with less a server would fill the store with versions.
	MinCryptoperiod = time.Hour
	MaxCryptoperiod = 2 * 365 * day
	// MinPeriod and MaxPeriod bound every duration that ParsePeriod reads.
	MinPeriod = time.Second
	MaxPeriod = 36500 * day
	// maxCount is the largest counter that both databases hold.
	maxCount = math.MaxInt64
)

// Validate checks the bounds.
func (c Cryptoperiod) Validate() error {
	if err := checkLife(c.Period); err != nil {
		return err
	}
	if c.MaxOperations > maxCount || c.MaxBytes > maxCount {
		return fault.New(api.CodeInvalid, "a limit of use is larger than 2^63-1").WithField("maxOperations").
			WithNext("leave it out for no limit")
	}
	if c.Warn < 0 || c.Warn > c.Period {
		return fault.New(api.CodeInvalid, "the warning age is not between zero and the period").WithField("warn").WithNext("leave it out for the default, or give an age at which the key isn't due yet")
	}
	return nil
}

// checkLife bounds a cryptoperiod by age; 0 is none.
func checkLife(d time.Duration) error {
	switch {
	case d != 0 && (d < MinCryptoperiod || d > MaxCryptoperiod):
		return badPeriod("the period is not between one hour and 730 days").
			WithNext(`write it like "90d" or "12h", or "0" for rotation on demand only`)
	case d%time.Microsecond != 0:
		return badPeriod("the period is finer than a microsecond")
	}
	return nil
}

// ParseCryptoperiod is ParsePeriod for how long a version protects. One that is out of bounds is told those of a cryptoperiod.
func ParseCryptoperiod(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil {
		err = checkLife(d)
	}
	return d, err
}

// ParsePeriod reads a duration: whole days ("90d"), Go's form ("12h", "90m"), or both ("1d12h"). "", "0" and "0s" are 0, which
// means no limit. Anything that isn't between one second and 36500 days is refused.
func ParsePeriod(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d != 0 && (d < MinPeriod || d > MaxPeriod) {
		err = badPeriod("the period is not between one second and 36500 days")
	}
	if err != nil {
		return 0, err
	}
	return d, nil
}

// parseDuration reads the forms of ParsePeriod. What is longer than MaxPeriod may come out shorter, and still longer than that.
func parseDuration(s string) (time.Duration, error) {
	switch s {
	case "", "0", "0s", "0m", "0h", "0d": // and no other way to write it, such as one that is rounded to it
		return 0, nil
	}
	total, rest, err := cutDays(s)
	if err != nil {
		return 0, err
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d <= 0 || rest[0] == '+' {
			return 0, badPeriod("the period is not a duration")
		}
		total += min(d, MaxPeriod+1) // no overflow: both are at most about 100 years
	}
	return total, nil
}

// cutDays takes the leading "90d" off.
func cutDays(s string) (time.Duration, string, error) {
	text, rest, found := strings.Cut(s, "d")
	if !found {
		return 0, s, nil
	}
	days, err := strconv.ParseUint(text, 10, 64)
	if err != nil || days == 0 || text[0] == '0' {
		return 0, "", badPeriod("the days are not a whole number from 0 on")
	}
	return time.Duration(min(days, uint64(MaxPeriod/day)+1)) * day, rest, nil
}

// FormatPeriod is the inverse of ParsePeriod: whole days as "90d", others in Go's form without empty tail ("36h"), and
// "" for no limit.
func FormatPeriod(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func badPeriod(msg string) *fault.Error {
	return fault.New(api.CodeInvalid, msg).WithField("period").WithNext(`write it like "90d" or "12h", or "0" for none`)
}
