package storetest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/store"
)

// oddNames are names with a meaning in SQL, in patterns or in quoting, in byte order. The language refuses most of them;
// the store must be right without it.
var oddNames = []string{`"; drop table keys; --`, `%`, `'`, `*`, `A`, `[a-z]`, `\`, `\%`, `_`, `a`, `a%`, `a%b`, `a'b`, `a*`, `aXb`, `a[b`, `a\b`, `a_b`, `ab`, `ä`, `日本`}

// Names guards ADVISORIES row 62: a wildcard in a name widens nothing, and every name finds itself alone.
func Names(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	change(t, st, func(tx store.Tx) error {
		for i := len(oddNames) - 1; i >= 0; i-- {
			if err := tx.CreateKey(ctx, newKey(t, oddNames[i], 1)); err != nil {
				return err
			}
			d := newDataset("id of "+oddNames[i], oddNames[i])
			if err := tx.CreateDataset(ctx, d); err != nil {
				return err
			}
			j := newJob(i, oddNames[i])
			j.Kind, j.Subject = oddNames[i], "s/"+oddNames[i]
			if _, _, err := tx.InsertJob(ctx, j); err != nil {
				return err
			}
			if err := tx.AddFailures(ctx, j.ID, []jobs.Failure{{Item: "x", At: epoch}, {Item: oddNames[i], Column: oddNames[i], At: epoch}}); err != nil {
				return err
			}
		}
		return nil
	})
	for i, name := range oddNames {
		view(t, st, func(tx store.Tx) error { return findsItself(t, tx, i) })
		change(t, st, func(tx store.Tx) error {
			if err := tx.ClearFailures(ctx, newJob(i, "").ID, []jobs.ItemColumn{{Item: name, Column: name}}); err != nil {
				return err
			}
			return tx.DeleteDataset(ctx, name, 1)
		})
		view(t, st, func(tx store.Tx) error {
			left, err := tx.Datasets(ctx)
			if len(left) != len(oddNames)-i-1 {
				t.Errorf("after removing the dataset %q, %d are left, want %d", name, len(left), len(oddNames)-i-1)
			}
			if err != nil {
				return err
			}
			_, n, err := tx.Failures(ctx, newJob(i, "").ID, 0, 9)
			wantEqual(t, "failures left of the job "+name, n, 1)
			return err
		})
	}
}

func findsItself(t *testing.T, tx store.Tx, i int) error {
	ctx, name := t.Context(), oddNames[i]
	k, err := tx.KeyByName(ctx, name)
	if err != nil {
		return err
	}
	wantEqual(t, "the name of the key found", k.Name, name)
	page, err := tx.Keys(ctx, name, 100)
	if err != nil {
		return err
	}
	wantEqual(t, "keys after "+name, len(page), len(oddNames)-i-1)
	if len(page) > 0 {
		wantEqual(t, "the key after "+name, page[0].Name, oddNames[i+1])
	}
	for _, f := range []jobs.Filter{{Kind: name}, {Subject: "s/" + name}} {
		found, err := tx.Jobs(ctx, f)
		if err != nil {
			return err
		}
		wantEqual(t, "jobs of "+name, len(found), 1)
	}
	return nil
}

// Limits guards ADVISORIES rows 82 and 89: a write is refused or can be read back, whatever its size and bytes,
// and both databases refuse the same ones.
func Limits(t *testing.T, o Opener) {
	st := open(t, o)
	ctx := t.Context()
	for _, size := range []int{0, 1, 2047, 8191, 1 << 20, store.MaxValue} {
		value := strings.Repeat("v", size)
		change(t, st, func(tx store.Tx) error { return tx.SetMeta(ctx, "big", value) })
		if got := meta(t, st, "big"); got != value {
			t.Errorf("of %d bytes, %d came back", size, len(got))
		}
	}
	for what, value := range map[string]string{"a zero byte": "a\x00b", "half a rune": "\xc3", "a surrogate": "\xed\xa0\x80"} {
		refused(t, st, api.CodeInvalid, what, func(tx store.Tx) error { return tx.SetMeta(ctx, "bad", value) })
		refused(t, st, api.CodeInvalid, what+" in a key", func(tx store.Tx) error { return tx.SetMeta(ctx, value, "bad") })
	}
	refused(t, st, api.CodeTooLarge, "too long a text", func(tx store.Tx) error {
		return tx.SetMeta(ctx, "bad", strings.Repeat("v", store.MaxValue+1))
	})
	if got := meta(t, st, "bad"); got != "" {
		t.Errorf("a refused write left %q", got)
	}
	big := newKey(t, "big", 1)
	big.Versions[0].Wrapped = make([]byte, store.MaxValue+1)
	refused(t, st, api.CodeTooLarge, "too long a blob", func(tx store.Tx) error { return tx.CreateKey(ctx, big) })
	refused(t, st, api.CodeNotFound, "half of a refused key", func(tx store.Tx) error { _, err := tx.KeyByName(ctx, "big"); return err })
	bigSegment(t, st)
}

// bigSegment: the audit log takes a large batch whole, and refuses a too large one whole.
func bigSegment(t *testing.T, st store.Store) {
	ctx := t.Context()
	h := acquire(t, st, "n", at(0), time.Hour)
	s := segment(h.Shard, 1, h.Epoch, 0, 2)
	s.Lines = bytes.Repeat([]byte{0, '\n', 0xff}, store.MaxValue/3)
	if err := st.Append(ctx, s); err != nil {
		t.Fatal(describe(err))
	}
	view(t, st, func(tx store.Tx) error {
		return tx.Segments(ctx, audit.SegmentQuery{}, func(got *audit.Segment) error {
			if !bytes.Equal(got.Lines, s.Lines) {
				t.Errorf("of %d bytes of lines, %d came back", len(s.Lines), len(got.Lines))
			}
			return nil
		})
	})
	next := segment(h.Shard, 2, h.Epoch, 2, 1)
	next.Lines = make([]byte, store.MaxValue+1)
	wantCode(t, st.Append(ctx, next), api.CodeTooLarge, "too large a batch")
	next.Lines, next.First = []byte("x"), 1<<44-1
	wantCode(t, st.Append(ctx, next), api.CodeLimit, "an index beyond the shard")
	next.First, next.Shard = 2, 1<<20
	wantCode(t, st.Append(ctx, next), api.CodeLimit, "a shard beyond the log")
}
