package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/pflag"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/foreign"
)

// fromFlags are those of `dataset encrypt --from`.
type fromFlags struct {
	source api.DatasetSource
	files  []string
	form   string
}

const fromHelp = `

With --from, the values are ciphertexts of another system: each is opened with one of the candidate keys, verified before it
is decrypted, sealed, and put in the place of the old one. What no candidate opens stays as it is and is listed
(keyturn job show). --dry-run counts how many values open under which candidate. A dataset that was added with --foreign isn't
encrypted without --from (exit status 5), so that nothing of the other system's is sealed as if it were plaintext; with
--plain you say that nothing of it is left.

  fernet                         tokens; candidates are Fernet keys
  aes-256-cbc                    IV and ciphertext; nothing verifies them
  aes-256-cbc, layout iv-hmac    and HMAC-SHA-256 behind them; a candidate is 64 bytes: key, then MAC key (32: one for both)
  aes-256-cbc, layout openssl    openssl enc -aes-256-cbc -pbkdf2; candidates are passwords; nothing verifies them
  pgcrypto                       pgp_sym_encrypt(), also in armor; candidates are passwords
  pgcrypto, layout raw           encrypt(…, 'aes'); candidates are its keys, of 1 to 32 bytes; nothing verifies them
  pgcrypto, layout raw-iv        encrypt_iv(…, 'aes') with its IV in front; likewise

What nothing verifies is opened only with --unauthenticated and an --expect that says what a plaintext looks like: a wrong key
finds a padding in one of 256 values. Importing takes key.encrypt and key.decrypt on the keys of the columns. The candidates
are kept sealed with the job until it ends, so 'job retry' can't take it up again: run the same command instead.`

func (f *fromFlags) add(flags *pflag.FlagSet) {
	s := &f.source
	flags.StringVar(&s.Format, "from", "", "take over what another system encrypted, in this `format`: fernet, aes-256-cbc or pgcrypto")
	flags.StringVar(&s.Layout, "from-layout", "", "how a value is put together, a `layout` of above (default: the format's first)")
	flags.StringArrayVar(&f.files, "from-key-file", nil, "a `file` with a candidate key, readable by its owner alone, or - for stdin; may be repeated")
	flags.StringVar(&f.form, "from-key-format", formAuto, "the `form` in which the files hold the keys: auto, raw, base64, hex, fernet or text")
	flags.StringVar(&s.Encoding, "from-encoding", "", "the `encoding` of the values in the column: raw, base64 or hex (default: found out)")
	flags.StringVar(&s.IV, "from-iv", "", "the IV of pgcrypto's layout raw, 32 hexadecimal `digits` (default: zeroes)")
	flags.IntVar(&s.Iterations, "from-iterations", 0, "the `rounds` of PBKDF2 in layout openssl (default 10000)")
	flags.BoolVar(&s.Unauthenticated, "unauthenticated", false, "open values that nothing verifies")
	flags.StringVar(&s.Expect, "expect", "", "what every plaintext must be: utf8, any, or a regular `expression` that fits all of it")
	flags.BoolVar(&s.PlaintextToo, "unencrypted-too", false, "also seal values that aren't in the format")
}

// request is the source with its candidates; nil without --from. release overwrites them.
func (f *fromFlags) request(ctx context.Context, a *app, given *pflag.FlagSet) (in *api.DatasetSource, release func(), err error) {
	release = func() {
		for _, k := range f.source.Keys {
			clear(k)
		}
	}
	if f.source.Format == "" {
		for _, name := range []string{"from-layout", "from-key-file", "from-key-format", "from-encoding", "from-iv", "from-iterations", "unauthenticated", "expect", "unencrypted-too"} {
			if given.Changed(name) {
				return nil, release, usage(name, "dataset encrypt: --%s goes with --from", name).WithNext("say --from FORMAT too: fernet, aes-256-cbc or pgcrypto")
			}
		}
		return nil, release, nil
	}
	if len(f.files) == 0 {
		return nil, release, usage("from-key-file", "dataset encrypt: no candidate key is named").WithNext("name at least one --from-key-file")
	}
	for i, file := range f.files {
		key, as, err := f.candidate(ctx, a, file)
		if err != nil {
			return nil, release, fault.Wrapf("", err, "candidate %d", i+1)
		}
		if as != "" {
			a.note("candidate %d was read as %s", i+1, as)
		}
		f.source.Keys = append(f.source.Keys, key)
	}
	return &f.source, release, nil
}

func (f *fromFlags) candidate(ctx context.Context, a *app, file string) (key []byte, as string, err error) {
	if err := isPrivate(file, "from-key-file"); err != nil {
		return nil, "", err
	}
	b, err := a.readInput(ctx, file, "candidate key", foreign.MaxCandidate)
	if err != nil {
		return nil, "", err
	}
	defer clear(b)
	source := foreign.Source{Format: f.source.Format, Layout: f.source.Layout}
	isText := source.TakesPasswords() || source.Format == "pgcrypto"
	switch {
	case f.form == formText || f.form == formAuto && isText:
		line, _ := bytes.CutSuffix(b, []byte("\n"))
		line, _ = bytes.CutSuffix(line, []byte("\r"))
		return bytes.Clone(line), "", nil
	case f.form == formRaw && isText:
		return bytes.Clone(b), "", nil
	case isText: // a key of pgcrypto's, in whatever length it has
		return parseKey(b, f.form, "from-key-file", upTo(32)...)
	}
	return parseKey(b, f.form, "from-key-file", 32, 64)
}

func upTo(n int) (sizes []int) {
	for i := range n {
		sizes = append(sizes, i+1)
	}
	return sizes
}

// isPrivate refuses a key file that others than its owner may read, as master keys are refused: whoever can has the key already.
func isPrivate(file, field string) error {
	if file == "" || file == "-" || runtime.GOOS == "windows" {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return fileFault(err, "opening the key file", field)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return fault.New(api.CodeWrongState, "opening the key file: others than its owner may read it").WithField(field).
			WithNext("chmod 600 the file, and think about who may have read it")
	}
	return nil
}

// candidatesTable shows what opened under which candidate, in the order of the files.
func candidatesTable(t *table, r api.DatasetRun) {
	for i, c := range r.Candidates {
		t.row(fmt.Sprintf("candidate %d", i+1), fmt.Sprintf("%s values (key %s)", grouped(c.Values), c.Fingerprint))
	}
}
