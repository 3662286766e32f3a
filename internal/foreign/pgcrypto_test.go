package foreign_test

import (
	"database/sql"
	"runtime"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // to speak to pgcrypto

	"github.com/keyturn/keyturn/internal/foreign"
	"github.com/keyturn/keyturn/internal/pgtest"
)

var pgp = foreign.Source{Format: "pgcrypto"}

// pgcrypto is a database with the extension, which writes what the tests read.
func pgcrypto(t *testing.T) func(expression string, args ...any) string {
	t.Helper()
	db, err := sql.Open("pgx", pgtest.Start(t).Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.ExecContext(t.Context(), "CREATE EXTENSION pgcrypto"); err != nil {
		t.Fatalf("pgcrypto is missing (it comes with PostgreSQL's contrib modules, scripts/test-deps.sh installs them): %v", err)
	}
	return func(expression string, args ...any) (out string) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), "SELECT "+expression, args...).Scan(&out); err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		return out
	}
}

func TestPGPSymEncrypt(t *testing.T) {
	sql := pgcrypto(t)
	long := strings.Repeat("long enough for several packets ", 4000)
	for _, plain := range []string{"", "078-05-1120", "fünf", long} {
		// Not cast5: with OpenSSL 3 and without its legacy provider, pgcrypto writes the plaintext as it is.
		for i, options := range []string{
			"", "compress-algo=1", "compress-algo=2, compress-level=9", "sess-key=1", "s2k-count=1024", "cipher-algo=aes256", "cipher-algo=aes192",
			"cipher-algo=3des", "sess-key=1, cipher-algo=aes256", "s2k-mode=0", "s2k-mode=1", "unicode-mode=1",
		} {
			if plain == long && i > 3 {
				continue
			}
			o := opener(t, pgp, "wrong", "correct horse", "wrong too")
			value := sql("pgp_sym_encrypt($1, 'correct horse', $2)", plain, options)
			opens(t, o, value, false, plain, 1)
			if options != "" {
				continue
			}
			opens(t, o, sql("armor($1::bytea)", []byte(value)), true, plain, 1)
			opens(t, o, sql("armor($1::bytea, ARRAY['Comment'], ARRAY['ours'])", []byte(value)), false, plain, 1)
			opens(t, o, sql("$1::bytea::text", []byte(value)), true, plain, 1)
			opens(t, o, sql("encode($1::bytea, 'hex')", []byte(value)), true, plain, 1)
			opens(t, o, sql("encode($1::bytea, 'base64')", []byte(value)), true, plain, 1)
			opens(t, o, sql("encode($1::bytea, 'base64')", []byte(value)), false, plain, 1)
			refuses(t, opener(t, pgp, "wrong"), value, false, foreign.NoKey)
		}
	}
	binary := "\x00\x01\xff of any kind"
	opens(t, opener(t, pgp, "pass"), sql("pgp_sym_encrypt_bytea($1, 'pass')", []byte(binary)), false, binary, 0)
}

// What pgcrypto could write years ago and nobody should read unasked.
func TestPGPRefused(t *testing.T) {
	sql := pgcrypto(t)
	o := opener(t, pgp, "pass")
	refuses(t, o, sql("pgp_sym_encrypt('x', 'pass', 'cipher-algo=bf')"), false, foreign.Unsupported)
	refuses(t, o, sql("pgp_sym_encrypt('x', 'pass', 's2k-digest-algo=md5')"), false, foreign.Unsupported)
	refuses(t, o, sql("pgp_sym_encrypt('x', 'pass', 's2k-count=65011712')"), false, foreign.Unsupported)

	open := sql("pgp_sym_encrypt('078-05-1120', 'pass', 'disable-mdc=1')")
	refuses(t, o, open, false, foreign.Unverified)
	src := unverified(foreign.Source{Format: "pgcrypto"})
	opens(t, opener(t, src, "wrong", "pass"), open, false, "078-05-1120", 1)
	refuses(t, opener(t, src, "wrong"), open, false, foreign.NoKey)
	// The verified ones are verified all the same.
	whole := sql("pgp_sym_encrypt('078-05-1120', 'pass')")
	refuses(t, opener(t, src, "pass"), whole[:len(whole)-3]+"xyz", false, foreign.NoKey)
}

func TestPGPEveryBitCounts(t *testing.T) {
	sql := pgcrypto(t)
	o := opener(t, pgp, "pass")
	raw := []byte(sql("pgp_sym_encrypt('078-05-1120', 'pass', 's2k-count=1024, compress-algo=2')"))
	want := "078-05-1120"
	opens(t, o, string(raw), false, want, 0)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if _, _, v := o.Open(nil, raw, false, now); v == foreign.Opened {
				t.Errorf("it opens with bit %d of byte %d turned", bit, i)
			}
			raw[i] ^= 1 << bit
		}
	}
	for n := range raw {
		if _, _, v := o.Open(nil, raw[:n], false, now); v == foreign.Opened || n > 4 && v == foreign.NotForeign {
			t.Errorf("cut to %d bytes: %d", n, v)
		}
	}
	for _, longer := range []string{string(raw) + "x", string(raw) + string(raw)} {
		if _, _, v := o.Open(nil, []byte(longer), false, now); v == foreign.Opened {
			t.Error("it opens with something behind it")
		}
	}
}

// A few bytes that decompress to more than a value may have.
func TestPGPBomb(t *testing.T) {
	sql := pgcrypto(t)
	o := opener(t, pgp, "pass")
	big := sql("pgp_sym_encrypt(repeat('x', $1), 'pass', 'compress-algo=2, compress-level=9')", foreign.MaxValue+1)
	if len(big) > foreign.MaxValue/100 {
		t.Fatalf("the bomb is %d bytes", len(big))
	}
	refuses(t, o, big, false, foreign.NoKey)
	opens(t, o, sql("pgp_sym_encrypt(repeat('x', 100000), 'pass', 'compress-algo=2')"), false, strings.Repeat("x", 100000), 0)
}

// Row 99: a length that somebody wrote down is no reason to allocate it. What a value claims to hold costs no more than what
// it holds.
func TestAdvisory_CVE_2020_15106(t *testing.T) {
	o := opener(t, unverified(foreign.Source{Format: "pgcrypto"}), "pass")
	session, data := "\xc3\x0d\x04\x09\x03\x08saltsalt\x60", "\x01the body that there is"
	for name, value := range map[string]string{
		"a session of 4 GiB":                      "\xc3\xff\xff\xff\xff\xff" + session[2:],
		"data of 4 GiB":                           session + "\xd2\xff\xff\xff\xff\xff" + data,
		"data of 4 GiB, in the old form":          session + "\xa6\xff\xff\xff\xff" + data[1:],
		"a part of 1 GiB":                         session + "\xd2\xfe" + data,
		"parts without an end":                    session + "\xd2" + strings.Repeat("\xe0x", 1000),
		"a length that is cut off":                session + "\xd2\xff\xff",
		"data of no length that is known, at all": session + "\xa7" + data[1:],
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, v := o.Open(nil, []byte(value), false, now)
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; v == foreign.Opened || spent > 4<<20 {
			t.Errorf("%s: verdict %d, %d bytes allocated for %d", name, v, spent, len(value))
		}
	}
}

func TestPlaintextIsNoMessage(t *testing.T) {
	o := opener(t, pgp, "pass")
	for _, plain := range []string{"", "078-05-1120", "hello world", "wonderful", "c3", "\xc3", "-----BEGIN", strings.Repeat("A", 40)} {
		refuses(t, o, plain, true, foreign.NotForeign)
		refuses(t, o, plain, false, foreign.NotForeign)
	}
	for _, broken := range []string{"-----BEGIN PGP MESSAGE-----\n\nww0E", `\xc30d0407`, "ww0EBwMC!", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----"} {
		refuses(t, o, broken, true, foreign.Malformed)
	}
}

func TestRawEncrypt(t *testing.T) {
	sql := pgcrypto(t)
	src := unverified(foreign.Source{Format: "pgcrypto", Layout: "raw"})
	iv := "an IV of sixteen"
	for _, key := range []string{"x", "a passphrase", "exactly sixteen!", "seventeen letters", "twenty-four bytes of key", key32} {
		for _, plain := range []string{"", "078-05-1120", strings.Repeat("block of sixteen", 4)} {
			o := opener(t, src, "something else", key)
			value := sql("encrypt($1, $2, 'aes')", []byte(plain), []byte(key))
			opens(t, o, value, false, plain, 1)
			opens(t, o, sql("encode($1::bytea, 'base64')", []byte(value)), true, plain, 1)
			opens(t, o, sql("$1::bytea::text", []byte(value)), true, plain, 1)
			opens(t, o, sql("encrypt($1, $2, 'aes-cbc/pad:pkcs')", []byte(plain), []byte(key)), false, plain, 1)

			value = sql("encrypt_iv($1, $2, $3, 'aes')", []byte(plain), []byte(key), []byte(iv))
			fixed := src
			fixed.IV = "616e204956206f66207369787465656e"
			opens(t, opener(t, fixed, key), value, false, plain, 0)
			inFront := unverified(foreign.Source{Format: "pgcrypto", Layout: "raw-iv"})
			opens(t, opener(t, inFront, key), iv+value, false, plain, 0)
		}
	}
	refuses(t, opener(t, src, key32), "078-05-1120", true, foreign.NotForeign)
}
