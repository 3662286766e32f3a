package storetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/incidents"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// Input is what one write is made from; any values are fair.
type Input struct {
	Method   uint8
	Text     string
	Text2    string
	Blob     []byte
	Number   int64
	Unsigned uint64
}

// errWrong is how a write that succeeded and can't be read back as it was shows.
var errWrong = errors.New("what was written came back as something else")

// writes holds each method of Tx that writes, fed with whatever comes. A write that is accepted must read back as it was
// given; it happens in a transaction that is rolled back.
var writes = []func(ctx context.Context, tx store.Tx, in Input) error{
	func(ctx context.Context, tx store.Tx, in Input) error {
		if err := tx.SetMeta(ctx, in.Text, in.Text2); err != nil {
			return err
		}
		got, err := tx.Meta(ctx, in.Text)
		return same(err, got == in.Text2)
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		k := keys.Key{Name: in.Text, Purpose: keys.Purpose(in.Text2), Created: when(in.Number), Versions: []keys.Version{{
			Number: 1, State: keys.State(in.Text2), Reason: in.Text, Wrapped: in.Blob, Operations: in.Unsigned, DestroyAt: when(in.Number)}}}
		k.ID[0] = 1
		if err := tx.CreateKey(ctx, k); err != nil {
			return err
		}
		got, err := tx.KeyByName(ctx, in.Text)
		return same(err, err == nil && got.Purpose == k.Purpose && got.Created.Equal(k.Created) &&
			bytes.Equal(got.Versions[0].Wrapped, in.Blob) && got.Versions[0].Operations == in.Unsigned)
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		return tx.AddTransitions(ctx, [16]byte{9}, []keys.Transition{{Version: uint32(in.Unsigned), From: keys.State(in.Text), Reason: in.Text2, At: when(in.Number)}})
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		return tx.PutKEKs(ctx, keys.KEK{ID: keys.KEKID(in.Text), Purpose: keys.KEKPurpose(in.Text2), Version: uint32(in.Unsigned), Created: when(in.Number),
			Wrappings: []keys.Wrapping{{MasterID: in.Text, URL: in.Text2, Blob: append([]byte{}, in.Blob...)}}})
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		p := access.Principal{ID: in.Text, Name: in.Text2, Role: in.Text, Scope: []string{in.Text, in.Text2}, Created: when(in.Number)}
		if err := tx.CreatePrincipal(ctx, p); err != nil {
			return err
		}
		got, err := tx.PrincipalByName(ctx, in.Text2)
		if err = same(err, err == nil && got.Role == in.Text && slices.Equal(got.Scope, p.Scope)); err != nil {
			return err
		}
		return tx.PutToken(ctx, access.Token{ID: in.Text2, PrincipalID: in.Text, Created: when(in.Number), Expires: when(-in.Number)})
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		s := &audit.Segment{Shard: int(in.Number), Seq: in.Unsigned, Epoch: in.Number, First: in.Unsigned, Count: int(in.Number), Mask: in.Unsigned,
			Edge: in.Blob, Lines: in.Blob, Nonce: in.Text, FirstTime: when(in.Number)}
		if err := tx.AppendSegment(ctx, s); !errors.Is(err, audit.ErrFenced) {
			return err
		}
		return nil
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		if err := tx.PutCheckpoint(ctx, audit.StoredCheckpoint{Sequence: 1, Events: in.Unsigned, Note: in.Text, Time: when(in.Number)}); err != nil {
			return err
		}
		c, err := tx.LastCheckpoint(ctx)
		return same(err, c.Note == in.Text && c.Events == in.Unsigned)
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		j := newJob(1, in.Text)
		j.Subject, j.Args, j.Done, j.Priority, j.Started = in.Text2, in.Blob, in.Number, int(int32(in.Number)), when(in.Number)
		got, inserted, err := tx.InsertJob(ctx, j)
		if err = same(err, inserted && got.Subject == in.Text2 && bytes.Equal(got.Args, in.Blob) && got.Done == in.Number); err != nil {
			return err
		}
		if err := tx.AddFailures(ctx, j.ID, []jobs.Failure{{Item: in.Text, Column: in.Text2, Reason: in.Text, Retry: in.Blob, At: when(in.Number)}}); err != nil {
			return err
		}
		fs, n, err := tx.Failures(ctx, j.ID, 0, 2)
		return same(err, n == 1 && len(fs) == 1 && fs[0].Item == in.Text && bytes.Equal(fs[0].Retry, in.Blob))
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		d := newDataset(in.Text, in.Text2)
		d.DSN, d.Table, d.PK, d.Context = in.Blob, in.Text, []string{in.Text2}, map[string]string{in.Text: in.Text2}
		d.Columns[0].Key, d.Created = in.Text2, when(in.Number)
		if err := tx.CreateDataset(ctx, d); err != nil {
			return err
		}
		got, err := tx.Dataset(ctx, in.Text2)
		return same(err, err == nil && got.Table == in.Text && got.PK[0] == in.Text2 && got.Context[in.Text] == in.Text2 && bytes.Equal(got.DSN, in.Blob))
	},
	func(ctx context.Context, tx store.Tx, in Input) error {
		i := newIncident(1)
		i.Reason, i.Details, i.OpenedBy, i.Opened, i.Entries = in.Text, in.Text2, in.Text, when(in.Number), in.Number
		i.Versions[0].Key, i.Versions[0].Number = in.Text2, uint32(in.Unsigned)
		if err := tx.CreateIncident(ctx, i); err != nil {
			return err
		}
		e := incidents.Entry{Incident: i.ID, Number: 1, Kind: incidents.Kind(in.Text2), At: when(in.Number), By: in.Text, Text: in.Text2, Data: in.Blob}
		if err := tx.AddEntry(ctx, e); err != nil {
			return err
		}
		got, err := tx.Incident(ctx, i.ID)
		if err = same(err, err == nil && got.Details == in.Text2 && got.Entries == in.Number && got.Versions[0] == i.Versions[0]); err != nil {
			return err
		}
		list, err := tx.Entries(ctx, i.ID)
		return same(err, len(list) == 1 && list[0].Text == in.Text2 && bytes.Equal(list[0].Data, in.Blob))
	},
}

func when(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func same(err error, equal bool) error {
	if err == nil && !equal {
		return errWrong
	}
	return err
}

// Write does one write with whatever is in it: the fuzz target of ADVISORIES row 14. It is accepted and reads back, or is
// refused for a reason that names the input; nothing panics, nothing ends as an internal error.
func Write(t *testing.T, st store.Store, in Input) (accepted bool) {
	undo := errors.New("undo")
	err := st.Change(t.Context(), func(tx store.Tx) error {
		if err := writes[int(in.Method)%len(writes)](t.Context(), tx, in); err != nil {
			return err
		}
		return undo
	})
	if errors.Is(err, undo) {
		return true
	}
	switch fault.CodeOf(err) {
	case api.CodeInvalid, api.CodeTooLarge, api.CodeConflict, api.CodeNotFound, api.CodeLimit:
	case api.CodeInternal:
		if f := new(fault.Error); errors.As(err, &f) && f.Unwrap() == nil {
			break // a rule of the store itself, such as "a segment without an event"
		}
		fallthrough
	default:
		t.Errorf("method %d ended with %q: %v\ninput %+v", int(in.Method)%len(writes), fault.CodeOf(err), describe(err), in)
	}
	return false
}

// Writes guards ADVISORIES row 14 without a fuzzer: the hand-picked inputs on every method, then random ones.
func Writes(t *testing.T, o Opener) {
	st := open(t, o)
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 3))
	texts := append([]string{"", "\x00", "a\x00b", "\xff", "ok", "\u2028", "{}", "null", "destroyed", "active"}, oddNames...)
	blobs := [][]byte{nil, {}, {0}, {0xff, 0xfe}, bytes.Repeat([]byte("long"), 5000)}
	numbers := []int64{0, 1, -1, 1 << 31, -1 << 31, 1 << 43, 1<<63 - 1, -1 << 63}
	tried, accepted := 0, 0
	for range 60 {
		for method := range writes {
			in := Input{uint8(method), texts[rnd.IntN(len(texts))], texts[rnd.IntN(len(texts))], blobs[rnd.IntN(len(blobs))],
				numbers[rnd.IntN(len(numbers))], rnd.Uint64() >> rnd.IntN(64)}
			tried++
			if Write(t, st, in) {
				accepted++
			}
		}
	}
	t.Logf("seed %d: %d writes tried, %d accepted and read back", seed, tried, accepted)
	if accepted == 0 || accepted == tried {
		t.Errorf("%d of %d writes were accepted: the inputs prove nothing", accepted, tried)
	}
}
