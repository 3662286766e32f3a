package reencrypt_test

import (
	"testing"

	"github.com/keyturn/keyturn/api"
)

// A key that is rotated while its re-encryption runs: the job doesn't end under the version that was active when its last
// chunk began, but under the one that is active when it ends.
func TestRotationDuringAReencryption(t *testing.T) {
	onBoth(t, func(c *clinic) {
		_, err := c.add(nil)
		c.must(err)
		c.run(c.encrypt)
		_, err = c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
		c.must(err)
		run, err := c.ReencryptDataset(c.Context(), "patients", api.DatasetRunRequest{Rate: 60, BatchSize: 10, Workers: 1})
		c.must(err)
		rotated := false
		var last api.Job
		for j, err := range c.WatchJob(c.Context(), run.Job) {
			c.must(err)
			if last = j; j.State == "running" && !rotated {
				_, err := c.RotateKey(c.Context(), "phi", api.RotateKeyRequest{})
				c.must(err)
				rotated = true
			}
		}
		if !rotated || last.State != "done" {
			c.Fatalf("rotated %v, the job ended %s: %s", rotated, last.State, last.Error)
		}
		if got := c.census(); len(got.Versions) != 1 || got.Versions[0] != (api.CensusVersion{Key: "phi", Version: 3, State: "active", Rows: 99}) {
			c.Errorf("census: %+v", got)
		}
	})
}
