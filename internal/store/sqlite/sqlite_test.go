package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/store/sqlite"
	"github.com/keyturn/keyturn/internal/store/storetest"
)

func fresh(t *testing.T) storetest.Opener {
	path := filepath.Join(t.TempDir(), "data", "keyturn.db")
	return func(ctx context.Context) (store.Store, error) { return sqlite.Open(ctx, path, sqlite.Config{}) }
}

func TestStore(t *testing.T) { storetest.Exercise(t, fresh) }

func TestAdvisory_CVE_2021_45042(t *testing.T) { storetest.Writes(t, fresh(t)) }

func TestAdvisory_OPENBAO_LIKE(t *testing.T) { storetest.Names(t, fresh(t)) }

func TestAdvisory_CVE_2025_64529_CVE_2023_35930(t *testing.T) { storetest.Limits(t, fresh(t)) }

func TestAdvisory_CVE_2025_47907(t *testing.T) { storetest.CancelledReads(t, fresh(t)) }

// FuzzWrites feeds every method that writes (ADVISORIES row 14).
func FuzzWrites(f *testing.F) {
	st, err := sqlite.Open(f.Context(), filepath.Join(f.TempDir(), "data", "keyturn.db"), sqlite.Config{})
	if err != nil {
		f.Fatal(err)
	}
	defer st.Close()
	for method := range uint8(9) {
		f.Add(method, "name", "other", []byte("blob"), int64(1), uint64(2))
		f.Add(method, "a\x00", "\xff", []byte{}, int64(-1), uint64(1)<<63)
	}
	f.Fuzz(func(t *testing.T, method uint8, text, text2 string, blob []byte, number int64, unsigned uint64) {
		storetest.Write(t, st, storetest.Input{Method: method, Text: text, Text2: text2, Blob: blob, Number: number, Unsigned: unsigned})
	})
}
