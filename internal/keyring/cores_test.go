package keyring

import (
	"errors"
	"sync/atomic"
	"testing"
)

// Every number is called once; of several failures that of the lowest number is told, as one after the other would.
func TestOverCores(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000} {
		calls := make([]atomic.Int32, n)
		if err := overCores(n, func(i int) error { calls[i].Add(1); return nil }); err != nil {
			t.Error(err)
		}
		for i := range calls {
			if c := calls[i].Load(); c != 1 {
				t.Errorf("of %d, %d was called %d times", n, i, c)
			}
		}
	}
	first, later := errors.New("first"), errors.New("later")
	for range 1000 {
		var after atomic.Int32
		err := overCores(100_000, func(i int) error {
			switch {
			case i == 7:
				return first
			case i > 7:
				after.Add(1)
				return later
			}
			return nil
		})
		if err != first {
			t.Fatalf("%v came back", err)
		}
		if after.Load() == 100_000-8 {
			t.Fatal("nothing was left out after the failure")
		}
	}
}
