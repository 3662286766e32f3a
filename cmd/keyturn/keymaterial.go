package main

import (
	"encoding/base64"
	"io"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

func keyDerive(a *app) *cobra.Command {
	var in api.DeriveRequest
	var context []string
	var out string
	cmd := &cobra.Command{
		Use:   "derive NAME",
		Short: "Derive a key from label, version and context",
		Long: `Derives a key that label, version and context determine, the same every time, and prints it in base64. Keep the version,
which is printed on stderr, to derive the same key after a rotation.`,
		Example: `  keyturn key derive phi --label index --context tenant=clinic --out index.key
  keyturn key derive phi --label index --version 1 --json`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if in.Context, err = pairs("context", "NAME=VALUE", context); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.DeriveKey(cmd.Context(), args[0], in)
				if err != nil {
					return err
				}
				defer clear(res.Key)
				return a.toFile(out, func() error {
					return a.showMaterial(res, res.Key, res.Version)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Label, "label", "", "what the derived key is for, a `word` that keeps uses apart (required)")
	versionVar(f, &in.Version, "version", "the `version` to derive from (default: the active one)")
	f.IntVar(&in.Length, "length", 0, "how many `bytes`, 16 to 64 (default 32)")
	f.StringArrayVar(&context, "context", nil, "bind to `NAME=VALUE`; may be repeated")
	f.StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
	return cmd
}

func keyDatakey(a *app) *cobra.Command {
	var in api.DataKeyRequest
	var context []string
	var out string
	cmd := &cobra.Command{
		Use:   "datakey NAME",
		Short: "Make a random data key, in clear and sealed",
		Long: `Makes a random key for use elsewhere and prints it in clear (base64) and sealed. Keep the sealed form beside what the
data key protects; 'keyturn decrypt' opens it again.`,
		Example: `  keyturn key datakey phi --context file=report.pdf --json --out datakey.json`,
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if in.Context, err = pairs("context", "NAME=VALUE", context); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.DataKey(cmd.Context(), args[0], in)
				if err != nil {
					return err
				}
				defer clear(res.Plaintext)
				return a.toFile(out, func() error {
					return a.show(res, func(t *table) {
						t.row("plaintext", base64.StdEncoding.EncodeToString(res.Plaintext))
						t.row("ciphertext", res.Ciphertext)
						t.row("version", res.Version)
					})
				})
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&in.Bytes, "bytes", 0, "how many `bytes`, 16 to 64 (default 32)")
	f.StringArrayVar(&context, "context", nil, "bind to `NAME=VALUE`; may be repeated")
	f.StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
	return cmd
}

func keyImport(a *app) *cobra.Command {
	var in api.ImportKeyRequest
	var file, form string
	cmd := &cobra.Command{
		Use:   "import NAME",
		Short: "Make a key, or its next version, of material from elsewhere",
		Long: `Reads 32 bytes of key material from stdin or a file: raw, in base64 as 'openssl rand -base64 32' and Fernet print it, or in
hexadecimal. What it was read as is said on stderr; --format takes one form and no other.

A key that doesn't exist is made; one that does gets the material as its next, active version, and the version before opens
what it sealed and seals nothing new. Material that one of its versions has already is refused (exit status 5). With
--version the material becomes that version or none: import several generations in their order, oldest first, and a script
that is run twice imports nothing twice.

An imported key opens nothing that another system encrypted with it: see 'keyturn dataset encrypt --from' for that.`,
		Example: `  keyturn key import legacy --in old.key --version 1 --reason "moving from the old vault"
  keyturn key import legacy --in new.key --version 2 --format fernet --reason "moving from the old vault"
  openssl rand -base64 32 | keyturn key import fresh --purpose data`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := isPrivate(file, "in"); err != nil {
				return err
			}
			raw, err := a.readInput(cmd.Context(), file, "key material", 4096)
			if err != nil {
				return err
			}
			defer clear(raw)
			var as string
			if in.Material, as, err = parseKey(raw, form, "material", 32); err != nil {
				return err
			}
			defer clear(in.Material)
			a.note("the material was read as %s", as)
			return a.with(cmd.Context(), func(s *store) error {
				k, err := s.ImportKey(cmd.Context(), args[0], in)
				return a.showKey(k, err)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "in", "", "read from this `file`, readable by its owner alone, instead of stdin")
	f.StringVar(&form, "format", formAuto, "the `form` in which the material is written: auto, raw, base64, hex or fernet")
	versionVar(f, &in.Version, "version", "the `version` that it must become; refused when another is next")
	f.StringVar(&in.Purpose, "purpose", "", "as for key create")
	f.StringVar(&in.Algorithm, "algorithm", "", "as for key create")
	f.IntVar(&in.Suite, "suite", 0, "as for key create")
	f.StringVar(&in.Period, "period", "", "as for key create")
	f.StringVar(&in.Reason, "reason", "", "`why`, for the audit log")
	return cmd
}

func keyExport(a *app) *cobra.Command {
	var in api.ExportKeyRequest
	var out string
	var yes bool
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Print the material of a version in clear",
		Long: `Prints the material of a version in base64: whoever has it opens everything that the version ever sealed, and no audit log
will know. Needs the right key.export and a reason, and asks first.`,
		Example: `  keyturn key export phi --version 1 --reason "moving to the new data centre" --out phi-1.key`,
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd.Context(), yes, "Exporting the material of key %s in clear", printable(args[0])); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.ExportKey(cmd.Context(), args[0], in)
				if err != nil {
					return err
				}
				defer clear(res.Material)
				return a.toFile(out, func() error { return a.showMaterial(res, res.Material, res.Version) })
			})
		},
	}
	f := cmd.Flags()
	versionVar(f, &in.Version, "version", "the `version` (default: the active one)")
	f.StringVar(&in.Reason, "reason", "", "`why`, for the audit log (required)")
	f.StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
	f.BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

// showMaterial prints a key for scripts: in base64 on a line of its own, and the version on stderr.
func (a *app) showMaterial(v any, key []byte, version uint32) error {
	if a.json {
		return a.show(v, nil)
	}
	a.note("version %d", version)
	_, err := io.WriteString(a.out, base64.StdEncoding.EncodeToString(key)+"\n")
	return writing(err)
}
