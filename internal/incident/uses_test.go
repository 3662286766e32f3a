package incident

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
)

// TestOnlyALivingVersionWasPerhapsUsed: what names no version may have used every one that there was at that time, and no
// other: not one that was made afterwards, nor one whose material was gone. What names a version used it.
func TestOnlyALivingVersionWasPerhapsUsed(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	lives := []life{{version: 1, begun: made, end: made.Add(24 * time.Hour)}, {version: 2, begun: made.Add(12 * time.Hour)}}
	batch := func(at time.Time) *usedLine {
		e := &usedLine{Time: at, Type: audit.KeyUse, Action: "decrypt_batch", Success: true, User: "ann"}
		e.Details.Items = 5
		return e
	}
	work := func(at time.Time) *usedLine {
		return &usedLine{Time: at, Type: audit.Reencryption, Action: "dataset-verify_requested", Success: true, User: "ann"}
	}
	named := work(made.Add(48 * time.Hour))
	named.Type, named.Action, named.Version = audit.KeyUse, "decrypt", 1
	for name, q := range map[string]struct {
		e    *usedLine
		want [2]bool
	}{
		"before both":        {batch(made.Add(-2 * time.Minute)), [2]bool{false, false}},
		"by another clock":   {batch(made.Add(-30 * time.Second)), [2]bool{true, false}},
		"one of them":        {batch(made.Add(time.Hour)), [2]bool{true, false}},
		"both":               {batch(made.Add(13 * time.Hour)), [2]bool{true, true}},
		"one is gone":        {batch(made.Add(25 * time.Hour)), [2]bool{false, true}},
		"work before both":   {work(made.Add(-time.Hour)), [2]bool{false, false}},
		"work on the first":  {work(made.Add(time.Hour)), [2]bool{true, false}},
		"work on the second": {work(made.Add(48 * time.Hour)), [2]bool{false, true}},
		"named, so it was":   {named, [2]bool{true, false}},
	} {
		counts := map[uint32]map[string]*tally{}
		if q.e.Type == audit.Reencryption {
			q.e.countWork(counts, lives)
		} else {
			q.e.count(counts, lives)
		}
		for n, want := range q.want {
			if got := counts[uint32(n+1)] != nil; got != want {
				t.Errorf("%s: version %d counted: %v, want %v", name, n+1, got, want)
			}
		}
	}
}

// TestPerhapsIsNotDid: the timeline tells those who did from those who only may have.
func TestPerhapsIsNotDid(t *testing.T) {
	use := func(users ...api.IncidentUser) api.IncidentUse {
		return api.IncidentUse{Key: "phi", Version: 3, Did: users}
	}
	did, perhaps := api.IncidentUser{User: "ann", Events: 1, Possible: 2}, api.IncidentUser{User: "bob", Possible: 2}
	for want, found := range map[string][]api.IncidentUse{
		"phi version 3: 0 principals could use it, 1 did":                                                              {use(did)},
		"phi version 3: 0 principals could use it, 0 did, 1 perhaps":                                                   {use(perhaps)},
		"phi version 3: 0 principals could use it, 1 did, 1 perhaps":                                                   {use(did, perhaps)},
		"uses of 3 versions recorded, from phi version 3 to phi version 3; 1 of them were used by somebody, 1 perhaps": {use(did, perhaps), use(perhaps), use()},
	} {
		if got := usesText(found); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
