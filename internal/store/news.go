package store

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/keyturn/keyturn/internal/envelope"
)

// News is what a committed change of any process makes void in the memory of all of them.
type News struct {
	Keys    []envelope.KeyID // these keys were changed
	SignIns bool             // a principal or a token was changed
	KEKs    bool             // key-encryption keys were written: there may be a new generation, or other wrappings
	All     bool             // anything may have been: news could not be heard for a while
}

// Listen implements Store.
func (d *Database) Listen(ctx context.Context, heard func(News)) {
	if d.b.Listen == nil {
		return
	}
	d.b.Listen(ctx, channel(d.id), func(payload string) { heard(parseNews(payload)) }, func() { heard(News{All: true}) })
}

// channel is where a store's news are told; several may share a database.
func channel(id string) string { return "keyturn_" + id }

// The words of a message: news are separated by spaces. What isn't understood, as from a newer keyturn, means anything.
const (
	wordSignIns = "signins"
	wordKEKs    = "keks"
	wordAll     = "all"
	prefixKey   = "key:"
	maxMessage  = 7000 // bytes; PostgreSQL takes 8000
)

func (t *txn) keyChanged(id envelope.KeyID) {
	t.news = append(t.news, prefixKey+hex.EncodeToString(id[:]))
}

func (t *txn) signInsChanged() { t.news = append(t.news, wordSignIns) }

// announce puts what the transaction changed into it, to be told to all at its commit and to nobody without.
func (t *txn) announce(ctx context.Context) error {
	if len(t.news) == 0 || t.d.b.Announce == "" {
		return nil
	}
	message := strings.Join(t.news, " ")
	if len(message) > maxMessage {
		message = wordAll
	}
	_, err := t.exec(ctx, "telling other processes of a change", t.d.b.Announce, channel(t.d.id), message)
	return err
}

func parseNews(message string) (n News) {
	for word := range strings.FieldsSeq(message) {
		text, isKey := strings.CutPrefix(word, prefixKey)
		id, err := hex.DecodeString(text)
		switch {
		case word == wordSignIns:
			n.SignIns = true
		case word == wordKEKs:
			n.KEKs = true
		case isKey && err == nil && len(id) == len(envelope.KeyID{}):
			n.Keys = append(n.Keys, envelope.KeyID(id))
		default:
			n.All = true
		}
	}
	return n
}
