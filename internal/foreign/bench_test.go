package foreign_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/foreign"
)

// BenchmarkOpen is one value of 11 bytes under the second of two candidates. pgcrypto's time is the stretching of the
// password, here 1024 bytes of it; by default it asks for 65536 to 253952.
func BenchmarkOpen(b *testing.B) {
	text, key := token(b, "078-05-1120")
	cbc := encrypted(b, key32, "an IV of sixteen", "078-05-1120")
	for name, c := range map[string]struct {
		o     *foreign.Opener
		value string
		text  bool
	}{
		"fernet":              {opener(b, tokens, other32, key), text, true},
		"aes-256-cbc iv":      {opener(b, unverified(foreign.Source{Format: "aes-256-cbc"}), other32, key32), cbc, false},
		"aes-256-cbc iv-hmac": {opener(b, foreign.Source{Format: "aes-256-cbc", Layout: "iv-hmac"}, other32, key32+mac32), signed(mac32, cbc), false},
		"pgcrypto pgp":        {opener(b, pgp, "word", "pass"), frozen["pgp"], true},
	} {
		b.Run(name, func(b *testing.B) {
			var dst []byte
			later := time.Now().Add(time.Hour)
			for b.Loop() {
				if _, _, v := c.o.Open(dst[:0], []byte(c.value), c.text, later); v != foreign.Opened {
					b.Fatal(v.Reason())
				}
			}
		})
	}
}
