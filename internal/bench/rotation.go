package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
)

// checkedKeys are the keys of the store whose rotation check is measured, of which dueKeys are due.
const (
	checkedKeys = 100_000
	dueKeys     = 100
)

// benchCheck times one rotation check: which of 100,000 keys are due. It is asked in process, as a dry run, on a clock that is set
// past the cryptoperiod of a hundred of them; the daily check does the same walk.
func benchCheck(e *env) ([]row, error) {
	ctx := context.Background()
	dir := filepath.Join(e.dir, "check")
	if _, err := server.Init(ctx, dir, server.InitOptions{Embedded: true, Environ: []string{}}); err != nil {
		return nil, err
	}
	var ahead atomic.Int64
	clock := func() time.Time { return time.Now().UTC().Add(time.Duration(ahead.Load())) }
	s, err := server.Open(ctx, dir, server.Options{Embedded: true, Environ: []string{}, Clock: clock})
	if err != nil {
		return nil, err
	}
	defer s.Close(ctx) //nolint:errcheck // thrown away
	c := keyturn.NewClient(s.InProcess())
	if err := createKeys(ctx, c); err != nil {
		return nil, err
	}
	ahead.Store(int64(11 * 24 * time.Hour))
	var times []float64
	for range e.pairs {
		start := time.Now()
		found, err := c.RunRotation(ctx, api.RotationRunRequest{DryRun: true})
		if err != nil {
			return nil, err
		}
		if found.Due != dueKeys {
			return nil, fmt.Errorf("%d keys are due, want %d", found.Due, dueKeys)
		}
		times = append(times, float64(time.Since(start).Milliseconds()))
	}
	return []row{{"R", fmt.Sprintf("rotation check, %d keys, %d due", checkedKeys, dueKeys), fmt.Sprintf("%.0f ms", median(times)), "", "", spread(times),
		"< 1 s", met(median(times) < 1000)}}, nil
}

// createKeys makes the keys, the due ones with a cryptoperiod of ten days.
func createKeys(ctx context.Context, c *keyturn.Client) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range cap(errs) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < checkedKeys; i = next.Add(1) - 1 {
				in := api.CreateKeyRequest{Name: fmt.Sprintf("key-%06d", i)}
				if i%(checkedKeys/dueKeys) == 0 {
					in.Period = "10d"
				}
				if _, err := c.CreateKey(ctx, in); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}
