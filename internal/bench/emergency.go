package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/api"
)

// emergencyKeys is how many keys the emergency of S11 rotates.
const emergencyKeys = 1000

// benchEmergency times one command that rotates every key of a store: from its start to the moment when the last key's new
// version was active, and to its end, when also who could and who did is written down. Each key is a durable transaction of
// its own, so the reference is as many bare commits on the same disk.
func benchEmergency(e *env) ([]row, error) {
	dir, _, err := e.filled("emergency", emergencyKeys)
	if err != nil {
		return nil, err
	}
	commit, err := durableCommit(filepath.Join(e.dir, "emergency-reference.db"), e.span)
	if err != nil {
		return nil, err
	}
	var active, whole []float64
	for range e.pairs {
		start := time.Now()
		out, err := e.keyturn(dir, nil, "key", "rotate", "--all", "--emergency", "--reason", "bench", "--json")
		if err != nil {
			return nil, err
		}
		whole = append(whole, time.Since(start).Seconds())
		var made struct{ Keys []api.Key }
		if err := json.Unmarshal(out, &made); err != nil {
			return nil, err
		}
		if len(made.Keys) < emergencyKeys {
			return nil, fmt.Errorf("%d keys were rotated, want %d", len(made.Keys), emergencyKeys)
		}
		last := start
		for _, k := range made.Keys {
			if at := k.Versions[len(k.Versions)-1].Activated; at != nil && at.After(last) {
				last = *at
			}
		}
		active = append(active, last.Sub(start).Seconds())
	}
	reference := emergencyKeys * commit / 1e6
	return []row{
		{"S11", fmt.Sprintf("emergency rotation of %d keys, command to all active", emergencyKeys), fmt.Sprintf("%.2f s", median(active)),
			fmt.Sprintf("%.2f s for as many bare commits", reference), fmt.Sprintf("%.2f", median(active)/reference), spread(active), "< 10 s", met(median(active) < 10)},
		{"S11", "the same, to the end of the command: who could use them and who did", fmt.Sprintf("%.2f s", median(whole)), "", "", spread(whole), "", ""},
	}, nil
}
