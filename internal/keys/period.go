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
	// MinPeriod and MaxPeriod bound a cryptoperiod by age.
	MinPeriod = time.Second
	MaxPeriod = 36500 * day
	// maxCount is the largest counter that both databases hold.
	maxCount = math.MaxInt64
)

// Validate checks the bounds.
func (c Cryptoperiod) Validate() error {
	if c.Period != 0 && (c.Period < MinPeriod || c.Period > MaxPeriod) {
		return badPeriod("the period is not between one second and 36500 days")
	}
	if c.Period%time.Microsecond != 0 {
		return badPeriod("the period is finer than a microsecond")
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

// ParsePeriod reads a duration: whole days ("90d"), Go's form ("12h", "90m"), or both ("1d12h"). "" and "0" are 0, which
// means no limit. Anything that isn't between one second and 36500 days is refused.
func ParsePeriod(s string) (time.Duration, error) {
	if s == "" || s == "0" {
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
	if total < MinPeriod || total > MaxPeriod {
		return 0, badPeriod("the period is not between one second and 36500 days")
	}
	return total, nil
}

// cutDays takes the leading "90d" off.
func cutDays(s string) (time.Duration, string, error) {
	text, rest, found := strings.Cut(s, "d")
	if !found {
		return 0, s, nil
	}
	days, err := strconv.ParseUint(text, 10, 32)
	if err != nil || days == 0 || days > uint64(MaxPeriod/day) || text[0] == '0' {
		return 0, "", badPeriod("the period's days are not a whole number from 1 to 36500")
	}
	return time.Duration(days) * day, rest, nil
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

func badPeriod(msg string) error {
	return fault.New(api.CodeInvalid, msg).WithField("period").WithNext(`write it like "90d" or "12h", or "0" for no limit`)
}
