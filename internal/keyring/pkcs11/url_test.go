package pkcs11

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"pkcs11:token=t;object=k?module-path=/lib/x.so": "pkcs11:token=t;object=k?module-path=/lib/x.so",
		// Any order, and one spelling of each value.
		"pkcs11:object=k;type=secret-key;token=my%20token?pin-source=/etc/pin&module-path=/lib/x.so": "pkcs11:token=my%20token;object=k?module-path=/lib/x.so&pin-source=file:/etc/pin",
		"pkcs11:serial=00ff;id=%01%fFA?module-path=%2Flib/x.so&pin-source=file:///etc/pin":           "pkcs11:serial=00ff;id=%01%FF%41?module-path=/lib/x.so&pin-source=file:/etc/pin",
		"pkcs11:token=a,b+c=d&e;object=%c3%bc?module-path=/l":                                        "pkcs11:token=a%2Cb%2Bc%3Dd%26e;object=%C3%BC?module-path=/l",
		"pkcs11:token=%3B%3F%25;object=k;id=%00?module-path=/a%20b":                                  "pkcs11:token=%3B%3F%25;object=k;id=%00?module-path=/a%20b",
	} {
		a, err := parse(raw)
		if spelled, err := canonical(raw); err != nil || spelled != want {
			t.Errorf("%s is %s, %v", raw, spelled, err)
		}
		if err != nil || a.String() != want {
			t.Errorf("%s\n gives %s, %v,\n want %s", raw, a, err, want)
			continue
		}
		if again, err := parse(want); err != nil || again != a {
			t.Errorf("%s reads as %+v, %v; not as %+v", want, again, err, a)
		}
	}
	a, _ := parse("pkcs11:token=a+b;id=%00%2c;object=o?module-path=/x&pin-source=file:/p")
	if a != (address{label: "a+b", id: "\x00,", object: "o", module: "/x", pinFile: "/p"}) {
		t.Errorf("read as %+v", a)
	}
}

// P3: what is refused is not quoted, whatever was pasted there.
func TestURLsAreRefusedUnquoted(t *testing.T) {
	const canary = "s3cr3t-canary"
	const tail = "?module-path=/lib/x.so"
	for _, raw := range []string{
		"", canary, "pkcs11:", "pkcs11:?", "pkcs11:" + tail, "PKCS11:token=t;object=k" + tail, "pkcs11://token=t;object=k" + tail,
		"pkcs11:token=t;object=k", "pkcs11:token=t;object=k?", "pkcs11:token=t" + tail, "pkcs11:object=k" + tail, // incomplete
		"pkcs11:token=t;object=k;" + tail, "pkcs11:;token=t;object=k" + tail, "pkcs11:token=t;object=k" + tail + "&", // empty attributes
		"pkcs11:token=;object=k" + tail, "pkcs11:token;object=k" + tail, "pkcs11:token=t;object=k?module-path=",
		"pkcs11:token=t;token=" + canary + ";object=k" + tail, "pkcs11:token=t;object=k" + tail + "&module-path=/" + canary, // twice
		"pkcs11:token=t;object=k;" + canary + "=1" + tail, "pkcs11:token=t;object=k" + tail + "&" + canary + "=1", // unknown
		"pkcs11:Token=t;object=k" + tail, "pkcs11:token=t;object=k;x-keyturn=1" + tail,
		"pkcs11:token=t;object=k;module-path=/lib/x.so" + tail, "pkcs11:token=t;object=k" + tail + "&object=" + canary, // on the wrong side
		"pkcs11:token=t;object=k;type=private" + tail, "pkcs11:token=t;object=k;slot-id=1" + tail, "pkcs11:token=t;object=k;model=" + canary + tail,
		"pkcs11:token=t;object=k?module-name=" + canary, "pkcs11:token=t;object=k" + tail + "&pin-value=" + canary, "pkcs11:token=t;object=k;pin-value=" + canary + tail,
		"pkcs11:token=t;object=k" + tail + "&pin-source=%7Crm%20" + canary, "pkcs11:token=t;object=k" + tail + "&pin-source=|" + canary, // a program
		"pkcs11:token=t;object=k" + tail + "&pin-source=" + canary, "pkcs11:token=t;object=k" + tail + "&pin-source=file://" + canary + "/pin",
		"pkcs11:token=t;object=k" + tail + "&pin-source=env:" + canary, "pkcs11:token=t;object=k" + tail + "&pin-source=file:../" + canary,
		"pkcs11:token=t;object=k?module-path=lib" + canary + ".so", "pkcs11:token=t;object=k?module-path=./x.so", "pkcs11:token=t;object=k?module-path=/", // relative: searched for
		"pkcs11:token=t;object=k?module-path=/lib/../" + canary, "pkcs11:token=t;object=k?module-path=/lib//x.so", "pkcs11:token=t;object=k?module-path=/x%00" + canary,
		"pkcs11:token=%;object=k" + tail, "pkcs11:token=%4;object=k" + tail, "pkcs11:token=%zz;object=k" + tail, "pkcs11:token=%\x11\x11;object=k" + tail, // encoding
		"pkcs11:token=%ff;object=k" + tail, "pkcs11:token=a%0Ab;object=k" + tail, "pkcs11:token=a b;object=k" + tail, "pkcs11:token=\xc3\xbc;object=k" + tail,
		"pkcs11:token=t;object=a/b" + tail, "pkcs11:token=t;object=k" + tail + "#" + canary, "pkcs11:token=t;object=" + strings.Repeat("k", maxURL) + tail,
	} {
		a, err := parse(raw)
		if fault.CodeOf(err) != api.CodeInvalid || fault.FieldOf(err) != keyring.FieldURL || fault.NextOf(err) == "" {
			t.Errorf("%q: %+v, %v", raw, a, err)
		} else if strings.Contains(err.Error()+fault.NextOf(err), canary) {
			t.Errorf("%q: quoted: %v, %s", raw, err, fault.NextOf(err))
		}
	}
}

// TestAdvisory_GHSA_32gq_x56h_299c: a name from input never decides which program or library is run. Only an absolute
// path does, and nothing is searched for; a PIN comes out of a file and never of a command, which RFC 7512 would allow.
func TestAdvisory_GHSA_32gq_x56h_299c_modules(t *testing.T) {
	for _, query := range []string{"module-name=softhsm2", "module-path=softhsm2.so", "module-path=./softhsm2.so", "module-path=~/x.so",
		"module-path=/lib/x.so&pin-source=%7Ccat%20/etc/pin", "module-path=/lib/x.so&pin-source=pin"} {
		if a, err := parse("pkcs11:token=t;object=k?" + query); fault.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %+v, %v", query, a, err)
		}
	}
}

// Whatever is accepted has one canonical form, which reads back as the same.
func FuzzURL(f *testing.F) {
	f.Add("pkcs11:token=a%20b;object=k;id=%01?module-path=/lib/x.so&pin-source=file:/p")
	f.Add("pkcs11:serial=1;id=%zz?module-path=/")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parse(raw)
		if err != nil {
			return
		}
		again, err := parse(a.String())
		if err != nil || again != a || again.String() != a.String() {
			t.Errorf("%q is %q, which is %+v, %v", raw, a, again, err)
		}
		if strings.ContainsAny(a.String(), ", \n#") {
			t.Errorf("%q is %q", raw, a)
		}
	})
}
