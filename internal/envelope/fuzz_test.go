package envelope

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// FuzzText: whatever the decoder accepts encodes back to itself; whatever Inspect accepts of it has a header that writes
// itself back and a prefix that SQL's left() would yield; nothing opens that wasn't sealed.
func FuzzText(f *testing.F) {
	sealed := map[string]bool{}
	keys := map[Suite]*Key{}
	for _, s := range sealing {
		keys[s] = testKey(f, s)
		for _, plain := range []string{"", "078-05-1120"} {
			// The reference seals the seeds, because every worker process must know the same ones.
			m := refMessage{key: testMaterial, header: keys[s].Header(), purpose: "phi", context: emptyContext, plaintext: []byte(plain),
				salt: make([]byte, s.shape().salt), iv: make([]byte, s.shape().iv)}
			text := string(AppendText(nil, m.seal()))
			sealed[text] = true
			f.Add([]byte(text))
		}
	}
	for _, v := range []string{"kt1.", "kt1.AA", "kt1.S1QBAREiM0RVZneImaq7zN3u_wEAAAAH", "kt1.S1QB\n", "kt1.=", "KT\x01\x01"} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		looks := LooksLikeCiphertext(text)
		blob, err := AppendDecodedText(nil, text)
		if err != nil {
			if fault.CodeOf(err) != api.CodeIntegrity || blob != nil {
				t.Fatalf("refused with %v and %d bytes", err, len(blob))
			}
			blob = text // the same bytes as a binary ciphertext
		} else if again := AppendText(nil, blob); !bytes.Equal(again, text) || !looks {
			t.Fatalf("%q is accepted but encodes to %q (looks like a ciphertext: %v)", text, again, looks)
		}
		info, err := Inspect(blob)
		if err == nil {
			if !bytes.Equal(info.Header.append(nil), blob[:HeaderSize]) || info.Bytes < 0 || info.Bytes > len(blob) {
				t.Fatalf("%x is inspected as %+v", blob, info)
			}
			prefix := string(AppendText(nil, blob)[:PrefixLen])
			if h, err := ParsePrefixText(prefix); err != nil || h != info.Header || h.PrefixText() != prefix {
				t.Fatalf("the prefix %s is read as %+v, %v", prefix, h, err)
			}
		}
		for _, k := range keys {
			out, err := k.Open(nil, blob, nil)
			if err == nil && !sealed[string(AppendText(nil, blob))] {
				t.Fatalf("%x was never sealed and opens to %q", blob, out)
			}
			if err != nil && (out != nil || err.Error() != errOpen.Error()) {
				t.Fatalf("refused with %v and %d bytes", err, len(out))
			}
		}
	})
}

// FuzzContext: whatever the strict reader accepts is written back to the byte, through pairs and through a map; and bytes
// that it doesn't accept as they are can't be the canonical form of anything.
func FuzzContext(f *testing.F) {
	for _, c := range []Context{nil, testContext(f), testContext(f, "", ""), testContext(f, "patient", "17", "tenant", "acme"), {0, 2, 0, 1, 'b', 0, 0, 0, 1, 'a', 0, 0}, {0xff, 0xff}} {
		f.Add([]byte(c))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pairs, err := ParseContext(raw)
		if err != nil {
			if fault.CodeOf(err) != api.CodeInvalid || pairs != nil {
				t.Fatalf("refused with %v and %d pairs", err, len(pairs))
			}
			return
		}
		want := Context(raw).bytes()
		if again, err := AppendContext(nil, pairs); err != nil || !bytes.Equal(again, want) {
			t.Fatalf("%x is read but written as %x, %v", raw, again, err)
		}
		m, err := Context(raw).Map()
		if err != nil || len(m) != len(pairs) {
			t.Fatalf("%x as a map: %v, %v", raw, m, err)
		}
		if again, err := NewContext(m); err != nil || !bytes.Equal(again, want) {
			t.Fatalf("%x is read but written as %x, %v", raw, again, err)
		}
	})
}

// FuzzCanonical: whatever three pairs come, in whatever order, the form is the same and reads back to them, or it is
// refused in every order.
func FuzzCanonical(f *testing.F) {
	f.Add("a", "1", "b", "2", "c", "3")
	f.Add("", "", "a", "", "\x00", "\x00")
	f.Add("a", "1", "a", "2", "\xff", "")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, k3, v3 string) {
		forward, err1 := AppendContext(nil, []Pair{{k1, v1}, {k2, v2}, {k3, v3}})
		backward, err2 := AppendContext(nil, []Pair{{k3, v3}, {k2, v2}, {k1, v1}})
		if (err1 == nil) != (err2 == nil) || !bytes.Equal(forward, backward) {
			t.Fatalf("order matters: %x, %v; %x, %v", forward, err1, backward, err2)
		}
		if err1 != nil {
			return
		}
		m, err := forward.Map()
		if err != nil || len(m) != 3 || m[k1] != v1 || m[k2] != v2 || m[k3] != v3 {
			t.Fatalf("read back as %q, %v", m, err)
		}
	})
}
