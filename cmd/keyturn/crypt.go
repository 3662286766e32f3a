package main

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
)

// crypt holds the flags that encrypt, decrypt and rewrap share.
type crypt struct {
	context []string
	in, out string
	lines   bool
}

func (c *crypt) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&c.context, "context", nil, "bound to `NAME=VALUE`; may be repeated, and must be the same to open again")
	f.StringVar(&c.in, "in", "", "read from this `file` instead of stdin")
	f.StringVar(&c.out, "out", "", "write to this new `file` (0600) instead of stdout")
	f.BoolVar(&c.lines, "lines", false, "take every line as one item, in order")
}

// maxCiphertext is more than any ciphertext of a plaintext within the limit has characters.
const maxCiphertext = 2 * api.MaxPlaintext

// run prepares what the three have in common: context, input, store, output.
func (c *crypt) run(ctx context.Context, a *app, key string, op lineOp, one func(*store, map[string]string) error) error {
	bound, err := pairs("context", "NAME=VALUE", c.context)
	if err != nil {
		return err
	}
	if err := a.prefetch(ctx, c.in); err != nil {
		return err
	}
	return a.with(ctx, func(s *store) error {
		return a.toFile(c.out, func() error {
			if c.lines {
				return a.runLines(ctx, s, c.in, key, bound, op)
			}
			return one(s, bound)
		})
	})
}

func encryptCommand(a *app) *cobra.Command {
	var c crypt
	cmd := &cobra.Command{
		Use:   "encrypt KEY",
		Short: "Seal a value under a key",
		Long: `Seals what comes in on stdin, as it is: nothing is added or trimmed, so say 'echo -n' or 'printf'. Prints one kt1. line.
The context is bound into the ciphertext and must be given again to open it. It is written to the audit log in clear.

With --lines every line is an item of its own; one that fails is printed as an empty line and named on stderr, and the exit
status is 6.`,
		Example: `  echo -n 900-05-1120 | keyturn encrypt phi --context patient=17
  keyturn encrypt phi --in letter.txt --out letter.kt1
  keyturn encrypt phi --lines < numbers.txt > sealed.txt`,
		Args: args("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, key := cmd.Context(), args[0]
			return c.run(ctx, a, key, encryptLines, func(s *store, bound map[string]string) error {
				plain, err := a.readInput(ctx, c.in, "plaintext", api.MaxPlaintext)
				if err != nil {
					return err
				}
				defer clear(plain)
				res, err := s.Encrypt(ctx, key, api.EncryptRequest{Plaintext: plain, Context: bound})
				if err != nil {
					return err
				}
				return a.printText(res, res.Ciphertext)
			})
		},
	}
	c.flags(cmd)
	return cmd
}

func decryptCommand(a *app) *cobra.Command {
	var c crypt
	cmd := &cobra.Command{
		Use:   "decrypt KEY",
		Short: "Open a ciphertext",
		Long: `Opens the kt1. text on stdin, or the same in its binary form as a bytea column holds it, and prints exactly the plaintext's
bytes, with no newline added. The context must be the one that it was sealed with.

With --lines every line is an item of its own; one that fails is printed as an empty line and named on stderr, and the exit
status is 6. A plaintext that holds a line break fails there: open it alone.`,
		Example: `  keyturn decrypt phi --context patient=17 < sealed.kt1
  keyturn decrypt phi --in letter.kt1 --out letter.txt
  keyturn decrypt phi --lines < sealed.txt`,
		Args: args("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, key := cmd.Context(), args[0]
			return c.run(ctx, a, key, decryptLines, func(s *store, bound map[string]string) error {
				text, err := a.readCiphertext(ctx, c.in)
				if err != nil {
					return err
				}
				res, err := s.Decrypt(ctx, key, api.DecryptRequest{Ciphertext: text, Context: bound})
				if err != nil {
					return err
				}
				defer clear(res.Plaintext)
				if a.json {
					return a.show(res, nil)
				}
				return a.write(res.Plaintext)
			})
		},
	}
	c.flags(cmd)
	return cmd
}

func rewrapCommand(a *app) *cobra.Command {
	var c crypt
	cmd := &cobra.Command{
		Use:   "rewrap KEY",
		Short: "Move a ciphertext to the key's active version",
		Long: `Reads the kt1. text on stdin, or its binary form, and prints a text that opens to the same plaintext and stands under the
active version. The plaintext never leaves keyturn. For tables, 'keyturn dataset reencrypt' is the better way.`,
		Example: `  keyturn rewrap phi --context patient=17 < old.kt1 > new.kt1
  keyturn rewrap phi --lines < old.txt > new.txt`,
		Args: args("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, key := cmd.Context(), args[0]
			return c.run(ctx, a, key, rewrapLines, func(s *store, bound map[string]string) error {
				text, err := a.readCiphertext(ctx, c.in)
				if err != nil {
					return err
				}
				res, err := s.Rewrap(ctx, key, api.RewrapRequest{Ciphertext: text, Context: bound})
				if err != nil {
					return err
				}
				return a.printText(res, res.Ciphertext)
			})
		},
	}
	c.flags(cmd)
	return cmd
}

func inspectCommand(a *app) *cobra.Command {
	var in string
	return withFlags(&cobra.Command{
		Use:   "inspect",
		Short: "Say what a ciphertext says of itself",
		Long: `Reads a kt1. text on stdin, or its binary form, and says which key and version it stands under, without opening it. Nobody
has authenticated what it says.`,
		Example: "  keyturn inspect < sealed.kt1\n  keyturn inspect --json < sealed.kt1 | jq .version",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.readCiphertext(cmd.Context(), in)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.Inspect(cmd.Context(), text)
				if err != nil {
					return err
				}
				return a.show(res, func(t *table) {
					t.row("key", res.Key)
					t.row("key id", res.KeyID)
					t.row("version", res.Version)
					t.row("format", res.Format)
					t.row("suite", res.Suite)
					t.row("bytes", res.Bytes)
				})
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&in, "in", "", "read from this `file` instead of stdin")
	})
}

// withFlags adds flags to a command literal.
func withFlags(cmd *cobra.Command, add func(*cobra.Command)) *cobra.Command {
	add(cmd)
	return cmd
}

// readCiphertext reads one kt1. text; blanks around it, as a file's last newline, are no part of it. What begins as the binary
// form does, which no text can, is taken as that, to its last byte.
func (a *app) readCiphertext(ctx context.Context, file string) (string, error) {
	b, err := a.readInput(ctx, file, "ciphertext", maxCiphertext)
	if err == nil && bytes.HasPrefix(b, []byte{'K', 'T', envelope.Format}) {
		return string(envelope.AppendText(nil, b)), nil
	}
	return string(bytes.TrimSpace(b)), err
}

// printText prints a result that is one line of text.
func (a *app) printText(v any, line string) error {
	if a.json {
		return a.show(v, nil)
	}
	return a.write([]byte(line + "\n"))
}
