package keyring

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// overCores calls do for 0 to n-1, on as many goroutines as there are cores. After an error no further call begins, and it is
// the one of the lowest number that comes back: that which calling one after the other would have met.
func overCores(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, n)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for !failed.Load() { // asked before a number is taken: each that was taken is tried
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = do(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() {
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
	}
	return nil
}
