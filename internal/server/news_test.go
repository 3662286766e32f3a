package server

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/store"
)

// A node that hears of new key-encryption keys, or may have missed it, wraps and signs under them from then on.
func TestNewsOfKeyEncryptionKeys(t *testing.T) {
	s := opened(t, made(t), Options{})
	ctx := t.Context()
	for _, news := range []store.News{{KEKs: true}, {All: true}} {
		fresh, err := s.ring.NewKEKs(ctx, []keys.KEKPurpose{keys.KEKSecrets})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.Change(ctx, func(tx store.Tx) error { return tx.PutKEKs(ctx, fresh...) }); err != nil { // as another node does
			t.Fatal(err)
		}
		ears := &Server{ring: s.ring, log: s.log} // whose work can be waited for
		ears.heard(ctx, news)
		ears.working.Wait()
		mac, err := s.ring.MAC(ctx, keys.KEKSecrets, "x", nil)
		if err != nil || !strings.HasPrefix(mac, string(fresh[1].ID)+":") {
			t.Errorf("%+v: still under what was replaced: %v", news, err)
		}
	}
}
