package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// sealing are the suites that single messages can be sealed with.
var sealing = []Suite{SuiteStandard, SuiteCompact, SuiteCBC}

var (
	testID       = KeyID{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01}
	testMaterial = []byte("0123456789abcdef0123456789ABCDEF")
)

// failer is what *testing.T, *testing.B, *testing.F and *rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func testKey(t failer, s Suite, change ...func(*refMessage)) *Key {
	t.Helper()
	m := refMessage{key: testMaterial, header: Header{Format, s, testID, 7}, purpose: "phi"}
	for _, f := range change {
		f(&m)
	}
	k, err := NewKey(m.header.KeyID, m.header.Version, m.header.Suite, m.purpose, material.New(bytes.Clone(m.key)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testContext(t failer, kv ...string) Context {
	t.Helper()
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	c, err := NewContext(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustSeal(t failer, k *Key, plaintext []byte, c Context) []byte {
	t.Helper()
	blob, err := k.Seal(nil, plaintext, c)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// refuses fails unless opening gives the one integrity error and no bytes.
func refuses(t testing.TB, what string, k *Key, blob []byte, c Context) {
	t.Helper()
	out, err := k.Open(nil, blob, c)
	if out != nil || fault.CodeOf(err) != api.CodeIntegrity || err.Error() != errOpen.Error() {
		t.Errorf("%s: opened to %d bytes with error %v, want the one integrity error", what, len(out), err)
	}
}

// What is sealed opens to itself, behind whatever stood in dst, for every suite and length; and the lengths are as the
// table of suites says.
func TestSealOpen(t *testing.T) {
	for _, s := range sealing {
		k := testKey(t, s)
		rapid.Check(t, func(t *rapid.T) {
			plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plaintext")
			prefix := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "prefix")
			c, err := NewContext(rapid.MapOfN(rapid.StringN(0, 10, 40), rapid.StringN(0, 10, 40), 0, 5).Draw(t, "context"))
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := k.Seal(slices.Clone(prefix), plain, c)
			if err != nil || !bytes.HasPrefix(sealed, prefix) {
				t.Fatalf("sealing: %v", err)
			}
			blob := sealed[len(prefix):]
			if len(blob) != s.SealedLen(len(plain)) || len(blob)-len(plain) > s.Overhead() {
				t.Fatalf("%d bytes became %d, SealedLen says %d", len(plain), len(blob), s.SealedLen(len(plain)))
			}
			info, err := Inspect(blob)
			if err != nil || info.Header != k.Header() || info.Exact && info.Bytes != len(plain) || info.Bytes < len(plain) || info.Bytes-len(plain) > 15 {
				t.Fatalf("inspecting %d bytes: %+v, %v", len(plain), info, err)
			}
			opened, err := k.Open(slices.Clone(prefix), blob, c)
			if err != nil || !bytes.Equal(opened, append(slices.Clone(prefix), plain...)) {
				t.Fatalf("opening: %x, %v", opened, err)
			}
		})
	}
}

// The package opens what the reference sealed, and the reference makes the same bytes from the salt and nonce that the
// package chose: both directions of one format.
func TestSealAgreesWithReference(t *testing.T) {
	for _, s := range sealing {
		p := s.shape()
		for n := range 70 {
			m := refMessage{key: testMaterial, header: Header{Format, s, testID, 7}, purpose: "phi", context: testContext(t, "patient", "17"),
				plaintext: bytes.Repeat([]byte{byte(n)}, n)}
			k := testKey(t, s)
			blob := mustSeal(t, k, m.plaintext, m.context)
			m.salt = blob[HeaderSize : HeaderSize+p.salt]
			m.iv = blob[HeaderSize+p.salt+p.com : HeaderSize+p.salt+p.com+p.iv]
			if !bytes.Equal(m.seal(), blob) {
				t.Fatalf("%v, %d bytes: the reference seals differently", s, n)
			}
			m.salt, m.iv = bytes.Repeat([]byte{1}, p.salt), bytes.Repeat([]byte{2}, p.iv)
			if out, err := k.Open(nil, m.seal(), m.context); err != nil || !bytes.Equal(out, m.plaintext) {
				t.Fatalf("%v, %d bytes: what the reference sealed doesn't open: %v", s, n, err)
			}
		}
	}
}

// I1 and FAULTS row 8: a ciphertext opens under its own key, version, suite, purpose and context only.
func TestOpenRefusesEverythingElse(t *testing.T) {
	ctx := testContext(t, "a", "1", "b", "2")
	for _, s := range sealing {
		k, plain := testKey(t, s), []byte("078-05-1120")
		blob := mustSeal(t, k, plain, ctx)
		if _, err := k.Open(nil, blob, ctx); err != nil {
			t.Fatal(err)
		}
		otherID := func(m *refMessage) { m.header.KeyID[15]++ }
		otherVersion := func(m *refMessage) { m.header.Version++ }
		for name, change := range map[string]func(*refMessage){
			"other key id": otherID, "other version": otherVersion,
			"other purpose":  func(m *refMessage) { m.purpose = "pii" },
			"other material": func(m *refMessage) { m.key = bytes.Repeat([]byte{1}, 32) },
		} {
			other := testKey(t, s, change)
			refuses(t, fmt.Sprintf("%v, %s", s, name), other, blob, ctx)
			h := other.Header()
			refuses(t, fmt.Sprintf("%v, %s, header rewritten", s, name), other, append(h.append(nil), blob[HeaderSize:]...), ctx)
		}
		for _, downgrade := range []Suite{0, SuiteStandard, SuiteCompact, SuiteStream, SuiteCBC, 5, 255} {
			if downgrade == s {
				continue
			}
			changed := bytes.Clone(blob)
			changed[3] = byte(downgrade)
			refuses(t, fmt.Sprintf("%v as %v", s, downgrade), k, changed, ctx)
			if p := downgrade.shape(); p != nil && p.messages {
				refuses(t, fmt.Sprintf("%v as %v under a key of that suite", s, downgrade), testKey(t, downgrade), changed, ctx)
			}
		}
		for name, c := range map[string]Context{
			"no context": nil, "empty": testContext(t), "a value changed": testContext(t, "a", "1", "b", "3"),
			"a key changed": testContext(t, "a", "1", "c", "2"), "a pair less": testContext(t, "a", "1"), "a pair more": testContext(t, "a", "1", "b", "2", "c", ""),
			"values swapped": testContext(t, "a", "2", "b", "1"), "keys and values swapped": testContext(t, "1", "a", "2", "b"),
			"a byte moved":  testContext(t, "a", "1b", "", "2"),
			"out of order":  {0, 2, 0, 1, 'b', 0, 1, '2', 0, 1, 'a', 0, 1, '1'},
			"one byte more": append(bytes.Clone(ctx), 0), "one byte less": ctx[:len(ctx)-1], "too long": make(Context, MaxContext+1),
		} {
			refuses(t, fmt.Sprintf("%v, context: %s", s, name), k, blob, c)
		}
	}
}

// FAULTS row 8: every bit flipped, every truncation, extensions.
func TestEveryBitCounts(t *testing.T) {
	ctx := testContext(t, "patient", "17")
	for _, s := range sealing {
		k := testKey(t, s)
		for _, n := range []int{0, 1, 16, 33} {
			blob := mustSeal(t, k, make([]byte, n), ctx)
			for i := range len(blob) * 8 {
				changed := bytes.Clone(blob)
				changed[i/8] ^= 1 << (i % 8)
				refuses(t, fmt.Sprintf("%v, %d bytes, bit %d flipped", s, n, i), k, changed, ctx)
			}
			for i := range blob {
				refuses(t, fmt.Sprintf("%v, %d bytes, cut to %d", s, n, i), k, blob[:i], ctx)
				refuses(t, fmt.Sprintf("%v, %d bytes, begun at %d", s, n, i+1), k, blob[i+1:], ctx)
				refuses(t, fmt.Sprintf("%v, %d bytes, byte %d missing", s, n, i), k, slices.Delete(bytes.Clone(blob), i, i+1), ctx)
			}
			for i := range 33 {
				refuses(t, fmt.Sprintf("%v, %d bytes, %d zeroes more", s, n, i+1), k, append(bytes.Clone(blob), make([]byte, i+1)...), ctx)
			}
			refuses(t, "twice", k, append(bytes.Clone(blob), blob...), ctx)
		}
	}
}

// A refused ciphertext leaves no plaintext behind in the caller's buffer.
func TestOpenLeavesNothingOnFailure(t *testing.T) {
	for _, s := range sealing {
		k := testKey(t, s)
		blob := mustSeal(t, k, []byte("attack at dawn, attack at dawn"), nil)
		blob[len(blob)-1] ^= 1
		dst := make([]byte, 0, 200)
		if _, err := k.Open(dst, blob, nil); err == nil {
			t.Fatal("opened")
		}
		if !bytes.Equal(dst[:cap(dst)], make([]byte, cap(dst))) {
			t.Errorf("%v: bytes were written: %q", s, dst[:cap(dst)])
		}
	}
}

func TestNewKeyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		field   string
		id      KeyID
		version uint32
		suite   Suite
		purpose string
		size    int
	}{
		"no id":               {"keyId", KeyID{}, 1, SuiteStandard, "phi", 32},
		"no version":          {"keyId", testID, 0, SuiteStandard, "phi", 32},
		"no suite":            {"suite", testID, 1, 0, "phi", 32},
		"the stream suite":    {"suite", testID, 1, SuiteStream, "phi", 32},
		"an unknown suite":    {"suite", testID, 1, 200, "phi", 32},
		"no purpose":          {"purpose", testID, 1, SuiteStandard, "", 32},
		"a zero in a purpose": {"purpose", testID, 1, SuiteStandard, "p\x00hi", 32},
		"a long purpose":      {"purpose", testID, 1, SuiteStandard, strings.Repeat("x", 65), 32},
		"31 bytes":            {"material", testID, 1, SuiteStandard, "phi", 31},
		"64 bytes":            {"material", testID, 1, SuiteStandard, "phi", 64},
	} {
		m := material.Random(c.size)
		_, err := NewKey(c.id, c.version, c.suite, c.purpose, m)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != c.field {
			t.Errorf("%s: %v (field %q)", name, err, fault.FieldOf(err))
		}
		if m.Len() != 0 {
			t.Errorf("%s: the material was left alive", name)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	k := testKey(t, SuiteStandard)
	if _, err := k.Seal(nil, nil, make(Context, MaxContext+1)); fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != "context" {
		t.Errorf("a context over the limit: %v", err)
	}
	if _, err := k.Seal(nil, make([]byte, MaxPlaintext+1), nil); fault.CodeOf(err) != api.CodeTooLarge {
		t.Errorf("a message over the limit: %v", err)
	}
}

// nil and the empty map are one context.
func TestNilContextIsTheEmptyMap(t *testing.T) {
	for _, s := range sealing {
		k := testKey(t, s)
		for _, c := range []Context{nil, {}, testContext(t)} {
			for _, d := range []Context{nil, {}, testContext(t)} {
				if _, err := k.Open(nil, mustSeal(t, k, []byte("x"), c), d); err != nil {
					t.Errorf("%v: sealed with %v, opened with %v: %v", s, c, d, err)
				}
			}
		}
	}
}

// Sealing, opening and deriving from many goroutines while the key is destroyed: what succeeds is right, what fails
// says that the key is gone. Run under the race detector too.
func TestDestroyWhileInUse(t *testing.T) {
	for _, s := range sealing {
		k, keeper := testKey(t, s), testKey(t, s)
		ctx, plain := testContext(t, "a", "b"), []byte("some plaintext")
		want, err := keeper.AppendDerived(nil, "x", ctx, 32)
		if err != nil {
			t.Fatal(err)
		}
		var started, done sync.WaitGroup
		for range 8 {
			started.Add(1)
			done.Go(func() {
				for i := 0; ; i++ {
					blob, err := k.Seal(nil, plain, ctx)
					if i == 10 {
						started.Done()
					}
					if errors.Is(err, ErrDestroyed) && i > 10 {
						return
					}
					if out, openErr := keeper.Open(nil, blob, ctx); err != nil || openErr != nil || !bytes.Equal(out, plain) {
						t.Errorf("%v: sealed wrongly: %v %v", s, err, openErr)
						return
					}
					if derived, err := k.AppendDerived(nil, "x", ctx, 32); err == nil && !bytes.Equal(derived, want) {
						t.Errorf("%v: derived wrongly", s)
						return
					}
				}
			})
		}
		started.Wait()
		k.Destroy()
		k.Destroy()
		done.Wait()
		if _, err := k.Open(nil, mustSeal(t, keeper, plain, ctx), ctx); !errors.Is(err, ErrDestroyed) {
			t.Errorf("%v: opening under a destroyed key: %v", s, err)
		}
	}
}

// A printed key shows neither material nor states.
func TestKeyPrintsNothing(t *testing.T) {
	k := testKey(t, SuiteStandard)
	mustSeal(t, k, nil, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		text := fmt.Sprintf(verb, k)
		if text != k.String() {
			t.Errorf("%s prints %q", verb, text)
		}
	}
}
