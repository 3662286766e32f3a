package reencrypt

import "testing"

// TestEnvelopeMessagesStay: what the SDK's Envelope sealed looks like plaintext to a census, and is never sealed again.
func TestEnvelopeMessagesStay(t *testing.T) {
	for _, kind := range Kinds() {
		w := Work{Kind: kind, PK: []string{"id"}, Columns: []WorkColumn{{Name: "ssn"}}}
		c := newCrypto(&w)
		p, b := NewPage(1, 1), NewBatch(1, 1)
		p.Values[0].Add([]byte("kte1.S1QB.body"), Text)
		p.Names[0].Append([]byte("17"))
		p.Keys[0].Append([]byte("17"))
		r := &result{sealed: make([]spent, 1)}
		v, err := c.value(t.Context(), p, b, r, 0, 0, false)
		if err != nil || v != leave || r.counts.Failed != 1 || r.counts.Unreadable != 1 || b.Rows() != 0 {
			t.Errorf("%s: verdict %v, counts %+v, error %v", kind, v, r.counts, err)
		}
	}
}
