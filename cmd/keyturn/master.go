package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/server"
)

func masterCommand(a *app) *cobra.Command {
	return noun("master", "Look after the master keys that open the store",
		`Master keys wrap the key-encryption keys. Several may be configured, and any one of them opens the store: keep one in
another place than the others. A URL says where:

  env://NAME, file:///PATH (0600)                        32 bytes in base64
  awskms:///ALIAS-OR-ARN?region=…                        AWS KMS wraps, its key never leaves
  awssecretsmanager:///NAME?region=…                     a secret of 32 bytes in base64
  vaultkv:///MOUNT/PATH?field=…                          the same, in Vault or OpenBao
  vaulttransit:///MOUNT/KEY                              Vault or OpenBao wraps, its key never leaves
  pkcs11:token=…;object=…?module-path=/PATH              an HSM wraps, its key never leaves
  escrow://                                              shares that people keep, see keyturn escrow

While none of them answers, a running server works on with the keys it has opened, for keys.masterOutage (4h).`,
		`  keyturn master generate --out /etc/keyturn/second.key
  keyturn master add file:///etc/keyturn/second.key
  keyturn master verify`,
		masterGenerate(a), masterList(a), masterAdd(a), masterRemove(a), masterRotate(a), masterVerify(a),
	)
}

func masterGenerate(a *app) *cobra.Command {
	var out, at string
	return withFlags(&cobra.Command{
		Use: "generate", Short: "Print a fresh master key, or make one in its place",
		Long: `Prints 32 random bytes in base64, as 'openssl rand -base64 32' does. Nothing else is done with them: add the key where
it was put with 'keyturn master add'. With --at it is made where a URL says, on this machine, and nothing is printed of
it: in a new file, or inside an HSM, which it then never leaves. What is there already is never replaced.`,
		Example: `  keyturn master generate --out /etc/keyturn/master.key
  export KEYTURN_MASTER_KEY="$(keyturn master generate)"
  keyturn master generate --at 'pkcs11:token=keyturn;object=master?module-path=/usr/lib/softhsm/libsofthsm2.so'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if at != "" {
				if out != "" {
					return usage("out", "--out and --at exclude each other")
				}
				return a.generateAt(cmd.Context(), at)
			}
			key := make([]byte, 32)
			rand.Read(key) //nolint:errcheck // never returns an error since Go 1.24
			defer clear(key)
			made := struct {
				MasterKey string `json:"masterKey"`
			}{base64.StdEncoding.EncodeToString(key)}
			return a.toFile(out, func() error { return a.printText(made, made.MasterKey) })
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&out, "out", "", "write to this new `file` (0600) instead of stdout")
		cmd.Flags().StringVar(&at, "at", "", "make the key at this `URL`: file:///PATH or pkcs11:…")
	})
}

// generateAt makes a master key where a URL says. No store is opened: it is this process that makes it.
func (a *app) generateAt(ctx context.Context, url string) error {
	if err := server.GenerateMaster(ctx, url); err != nil {
		return err
	}
	return a.show(struct {
		URL string `json:"url"`
	}{url}, func(t *table) { t.row("master key", url) })
}

func masterList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the master keys",
		Long: `Lists the configured master keys and whether each opens the store; "elsewhere" are those that the store is wrapped under
and this node doesn't have: configured on another node, or forgotten.`,
		Example: "  keyturn master list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.MasterKeys(cmd.Context())
				return a.showMasters(list, list.MasterKeys, list.Elsewhere, err)
			})
		},
	}
}

// showMasters prints master keys; doc is what --json prints of them.
func (a *app) showMasters(doc any, keys []api.MasterKey, elsewhere []api.MasterKeyElsewhere, err error) error {
	if err != nil {
		return err
	}
	return a.show(doc, func(t *table) {
		t.row("MASTER KEY", "PROVIDER", "KIND", "OPENS")
		for _, m := range keys {
			t.row(m.URL, m.Provider, m.Kind, m.OK)
		}
		for _, m := range elsewhere {
			provider, _, _ := strings.Cut(m.URL, ":")
			t.row(m.URL, provider, "-", "elsewhere")
		}
		for _, m := range keys {
			if m.Detail != "" {
				t.line("%s: %s", m.URL, m.Detail)
			}
			if m.Next != "" {
				t.line("  next: %s", m.Next)
			}
		}
		for _, m := range elsewhere {
			t.line("%s (fingerprint %s): %s", m.URL, m.Fingerprint, m.Detail)
		}
	})
}

func masterAdd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "add URL", Short: "Wrap every key-encryption key under one more master key",
		Long:    "Wraps every key-encryption key under one more master key and writes it into keyturn.yaml. The URL is opened where the\nstore is: on a server, by the server.",
		Example: "  keyturn master add file:///mnt/safe/second.key\n  keyturn master add env://KEYTURN_MASTER_KEY_2\n  keyturn master add 'awskms:///alias/keyturn?region=us-east-1'",
		Args:    args("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.AddMasterKey(cmd.Context(), args[0])
				return a.showMasters(res, res.MasterKeys, res.Elsewhere, err)
			})
		},
	}
}

func masterRemove(a *app) *cobra.Command {
	var yes bool
	return withFlags(&cobra.Command{
		Use: "remove URL [URL...]", Short: "Take away every wrapping under a master key",
		Long: `Takes away every wrapping under a master key: it opens the store no more. The last one that opens is never removed, and
those that stay must be there: where several are lost, name all of them at once. Asks first.

It may be one that only other nodes have, or had, and then be named by its fingerprint, too: 'keyturn master list' shows
them. While other nodes run, each must have another master key before: without --yes it is refused and says which nodes.`,
		Example: "  keyturn master remove env://KEYTURN_MASTER_KEY_OLD\n  keyturn master remove 'awskms:///alias/lost?region=us-east-1' file:///mnt/lost/second.key",
		Args:    func(cmd *cobra.Command, given []string) error { return args("URL")(cmd, given[:min(len(given), 1)]) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd.Context(), yes, "Removing the master key %s", printable(strings.Join(args, " and "))); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(s *store) error {
				remove := s.RemoveMasterKey
				if yes {
					remove = s.RemoveMasterKeyOfNodes
				}
				res, err := remove(cmd.Context(), args[0], args[1:]...)
				if err == nil && len(res.OtherNodes) > 0 {
					a.note("keyturn: other nodes are running: %s. One whose configuration names no other master key of the store doesn't start again, and stops serving after its keys.masterOutage: see to it now (docs/running-many-nodes.md).",
						printable(strings.Join(res.OtherNodes, ", ")))
				}
				return a.showMasters(res, res.MasterKeys, res.Elsewhere, err)
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&yes, "yes", false, "don't ask, and go on while other nodes run")
	})
}

func masterRotate(a *app) *cobra.Command {
	var in api.RotateMasterRequest
	return withFlags(&cobra.Command{
		Use: "rotate", Short: "Wrap the key-encryption keys anew",
		Long: `Wraps the key-encryption keys anew under every configured master key: what to do after the content of a master key
changed. What is wrapped under master keys that this node doesn't have stays: 'keyturn master list' shows them, 'keyturn
master remove' gives one up. With --keks a new generation of every key-encryption key is made, and all key versions are
wrapped anew; that needs every master key of the store on this node. Versions that can't be, since somebody changed their
rows, are named, with exit status 6; all others are moved. Neither touches data.`,
		Example: "  keyturn master rotate\n  keyturn master rotate --keks",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				res, err := s.RotateMasterKeys(cmd.Context(), in)
				switch {
				case err != nil || a.json:
				case in.KEKs:
					a.note("A new generation of the %d key-encryption keys was made, and every key version was wrapped anew under it.", res.Rewrapped)
				default:
					a.note("%d key-encryption keys wrapped anew.", res.Rewrapped)
				}
				return a.showMasters(res, res.MasterKeys, res.Elsewhere, err)
			})
		},
	}, func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&in.KEKs, "keks", false, "make a new generation of every key-encryption key")
	})
}

func masterVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Open every key-encryption key under every master key",
		Long: `Opens every key-encryption key under every master key, and says which fail. Exit status 6 when any does. On the machine
of a server, without a token, it answers also when that has shut its keys because no master key could be reached.`,
		Example: "  keyturn master verify",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.VerifyMasterKeys(cmd.Context())
				if err := a.showMasters(list, list.MasterKeys, list.Elsewhere, err); err != nil {
					return err
				}
				for _, m := range list.MasterKeys {
					if !m.OK {
						a.note("keyturn: a master key doesn't open every key-encryption key")
						return exit(api.ExitIntegrity)
					}
				}
				return nil
			})
		},
	}
}
