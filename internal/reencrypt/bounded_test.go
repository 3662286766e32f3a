package reencrypt

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/foreign"
)

// A page of an import is done within its time, however far passwords are stretched; and never larger than others are.
func TestPagesOfStretchedPasswords(t *testing.T) {
	openssl := foreign.Source{Format: "aes-256-cbc", Layout: "openssl"}
	slower := func(iterations int) foreign.Source {
		s := openssl
		s.Iterations = iterations
		return s
	}
	for what, c := range map[string]struct {
		source              foreign.Source
		candidates, columns int
		batch, want         int
	}{
		"openssl's own":        {openssl, 1, 1, 0, 200},
		"two columns":          {openssl, 2, 2, 0, 75},
		"600000 rounds":        {slower(600_000), 1, 1, 0, 5},
		"the most of both":     {slower(1_000_000), 16, 1, 0, 1},
		"16 for 600000":        {slower(600_000), 16, 3, 5000, 1},
		"a smaller page":       {slower(600_000), 1, 1, 2, 2},
		"pgcrypto":             {foreign.Source{Format: "pgcrypto"}, 16, 1, 0, 2},
		"keys aren't strained": {foreign.Source{Format: "fernet"}, 16, 1, 0, 0},
	} {
		w := Work{Batch: c.batch, Workers: maxWorkers}
		f := &from{Source: c.source, Fingerprints: make([]string, c.candidates)}
		w.bounded(f, c.columns)
		if w.Batch != c.want {
			t.Errorf("%s: a page of %d rows, not %d", what, w.Batch, c.want)
		}
		value := c.source.Stretching(c.candidates)
		if page := time.Duration(w.Batch*c.columns) * value; page > slowPage && w.Batch > 1 {
			t.Errorf("%s: a page takes %v", what, page)
		}
	}
}
