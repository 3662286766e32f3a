package jobs

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIDsSortByCreation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "a"))
		b := a.Add(time.Duration(rapid.Int64Range(1, 1<<30).Draw(t, "ms")) * time.Millisecond)
		ida, err := NewID(a, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		idb, err := NewID(b, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if ida >= idb || len(ida) != IDLength || !ValidID(ida) || !ValidID(idb) {
			t.Fatalf("%q then %q", ida, idb)
		}
	})
}

func TestIDNeedsItsRandomness(t *testing.T) {
	if _, err := NewID(noon, bytes.NewReader(make([]byte, 8))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("8 random bytes of 9: %v", err)
	}
}

func TestValidIDRefuses(t *testing.T) {
	for _, id := range []string{"", "0123456789abcdefghijklm", "0123456789abcdefghijklmno", "0123456789ABCDEFGHIJKLMN", "0123456789abcdefghijkl/.", "0123456789abcdefghijklmw"} {
		if ValidID(id) {
			t.Errorf("%q passes", id)
		}
	}
}

func TestPageSize(t *testing.T) {
	for limit, want := range map[int]int{-1: DefaultLimit, 0: DefaultLimit, 1: 1, MaxLimit: MaxLimit, MaxLimit + 1: MaxLimit} {
		if got := (Filter{Limit: limit}).PageSize(); got != want {
			t.Errorf("limit %d: %d rows, want %d", limit, got, want)
		}
	}
}
