package keyring

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/keys"
)

// However many keys are used, the caches stay within their bounds and their own counts stay right (S9: 100,000 keys).
func TestCachesAreBounded(t *testing.T) {
	r := New("t", nil, nil)
	id := func(i int) (id envelope.KeyID) {
		binary.BigEndian.PutUint32(id[:], uint32(i+1))
		return id
	}
	for i := range 2 * maxVersions {
		r.keep(&keys.Key{ID: id(i), Name: id(i).String()}, r.generation, time.Now())
		for n := range uint32(i % 4) {
			r.keepVersion(unwrapRef{generation: r.generation, id: id(i), number: n, seq: uint32(i)}, nil)
			r.keepVersion(unwrapRef{generation: r.generation, id: id(i), number: n, seq: uint32(i) + 1}, nil) // replaces
		}
		if len(r.snapshots) > maxCached || len(r.names) != len(r.snapshots) || r.unwrapped > maxVersions {
			t.Fatalf("after %d keys: %d snapshots, %d names, %d versions", i+1, len(r.snapshots), len(r.names), r.unwrapped)
		}
	}
	counted := 0
	for _, versions := range r.versions {
		counted += len(versions)
	}
	if counted != r.unwrapped || counted < maxVersions/2 || len(r.snapshots) != maxCached {
		t.Errorf("%d versions, counted as %d; %d snapshots", counted, r.unwrapped, len(r.snapshots))
	}
	for i := range 2 * maxVersions {
		r.Drop(id(i))
	}
	if r.unwrapped != 0 || len(r.versions)+len(r.snapshots)+len(r.names) != 0 {
		t.Errorf("everything dropped: %d versions counted, %d %d %d entries left", r.unwrapped, len(r.versions), len(r.snapshots), len(r.names))
	}
}

// A key that got another name is found by the new one only.
func TestRenamedKey(t *testing.T) {
	r := New("t", nil, nil)
	k := keys.Key{ID: envelope.NewKeyID(), Name: "old"}
	r.keep(&k, r.generation, time.Now())
	renamed := k
	renamed.Name = "new"
	r.keep(&renamed, r.generation, time.Now())
	if _, ok := r.names["old"]; ok || r.names["new"] != k.ID {
		t.Errorf("names are %v", r.names)
	}
}

// The buffers in which plaintexts pass through Rewrap hold zeroes when they are given back.
func TestRewrapWipes(t *testing.T) {
	m := envelopeKey(t)
	blob, err := m.Seal(nil, []byte("078-05-1120"), nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 64)
	plaintexts.Put(&buf)
	if _, err := Rewrap(nil, m, m, blob, nil); err != nil {
		t.Fatal(err)
	}
	for _, b := range buf[:cap(buf)] {
		if b != 0 {
			t.Fatalf("left in the buffer: %q", buf[:cap(buf)])
		}
	}
}
