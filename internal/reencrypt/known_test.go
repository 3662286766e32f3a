package reencrypt

import (
	"context"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/datasets"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// TestCensusOfForgedHeaders: what a census keeps and asks for is bounded by the keys there are, and what it counts is exact.
// The keys of others are found among any number of invented ones, the newest too.
func TestCensusOfForgedHeaders(t *testing.T) {
	st := &keyStore{}
	own, other := st.make("a", 2), st.make("b", 1)
	for i := range 1200 { // more than a page of keys
		st.make(fmt.Sprintf("key-%04d", i), 1)
	}
	s := &Service{cfg: Config{Store: st}}
	d := &datasets.Dataset{Columns: []datasets.Column{{KeyID: own}}}
	text := func(id envelope.KeyID, version uint32) Group {
		h := envelope.Header{Format: envelope.Format, Suite: envelope.SuiteStandard, KeyID: id, Version: version}
		return Group{Form: Text, Prefix: []byte(h.PrefixText()), Rows: 1}
	}
	const forged = 20000
	census := func(each func(Group) error) error {
		late := st.make("zlate", 3) // made before the census looks, and after it was prepared
		for i := range uint32(forged) {
			for _, g := range []Group{text(envelope.NewKeyID(), 1), text(own, 3+i), text(other, 2+i)} {
				if err := each(g); err != nil {
					return err
				}
			}
		}
		for _, g := range []Group{text(own, 1), text(own, 2), text(other, 1), text(late, 3), {Form: Null, Rows: 1}} {
			if err := each(g); err != nil {
				return err
			}
		}
		return nil
	}
	tallies, err := Count(t.Context(), censusOnly{census: census}, 1, s.known(d))
	if err != nil {
		t.Fatal(err)
	}
	tally := tallies[0]
	if tally.Rows() != 3*forged+5 || tally.Unknown != 3*forged || len(tally.Versions) != 4 {
		t.Errorf("of %d values %d are unknown and %d versions told apart", tally.Rows(), tally.Unknown, len(tally.Versions))
	}
	if tally.Versions[VersionOf{other, 1}] != 1 {
		t.Error("a value of another key was lost among the invented ones")
	}
	if st.views > 10 {
		t.Errorf("the store was asked %d times", st.views)
	}

	of := VersionOf{other, 1}
	if tallies, err = Count(t.Context(), censusOnly{census: census}, 1, only(of)); err != nil || len(tallies[0].Versions) != 1 || tallies[0].Versions[of] != 1 {
		t.Errorf("before a destruction: %+v, %v", tallies[0].Versions, err)
	}
}

// TestCensusWithoutKeys: when nobody can say which keys there are, there is no census.
func TestCensusWithoutKeys(t *testing.T) {
	st := &keyStore{}
	s := &Service{cfg: Config{Store: st}}
	known := s.known(&datasets.Dataset{Columns: []datasets.Column{{KeyID: st.make("own", 1)}}})
	st.away = true
	for _, id := range []envelope.KeyID{st.list[0].ID, envelope.NewKeyID()} {
		if ok, err := known(t.Context(), VersionOf{id, 1}); ok || fault.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("with the store away: %v, %v", ok, err)
		}
	}
}

// censusOnly is a target that can be counted.
type censusOnly struct {
	Target
	census func(each func(Group) error) error
}

func (c censusOnly) Census(_ context.Context, each func(Group) error) error { return c.census(each) }

// keyStore is a store that holds keys, in name order.
type keyStore struct {
	store.Store
	list  []keys.Key
	views int
	away  bool
}

func (s *keyStore) make(name string, versions int) envelope.KeyID {
	k := keys.Key{ID: envelope.NewKeyID(), Name: name, Versions: make([]keys.Version, versions)}
	s.list = append(s.list, k)
	return k.ID
}

func (s *keyStore) View(_ context.Context, fn func(store.Tx) error) error {
	if s.views++; s.away {
		return fault.New(api.CodeUnavailable, "the store is away")
	}
	return fn(keyTx{s: s})
}

type keyTx struct {
	store.Tx
	s *keyStore
}

func (t keyTx) KeyByID(_ context.Context, id envelope.KeyID) (keys.Key, error) {
	for _, k := range t.s.list {
		if k.ID == id {
			return k, nil
		}
	}
	return keys.Key{}, fault.New(api.CodeNotFound, "no such key")
}

func (t keyTx) Keys(_ context.Context, after string, limit int) (page []keys.Key, err error) {
	for _, k := range t.s.list {
		if k.Name > after && len(page) < limit {
			page = append(page, k)
		}
	}
	return page, nil
}
