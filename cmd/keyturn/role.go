package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/api"
)

func roleCommand(a *app) *cobra.Command {
	return noun("role", "See what each role may do",
		"A role is a named set of actions; a principal has one, within its scope.",
		"  keyturn role list\n  keyturn role show auditor",
		roleList(a), roleShow(a),
	)
}

func roleList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the roles",
		Long:    "Lists every role with what it is for and how many actions it allows.",
		Example: "  keyturn role list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				list, err := s.Roles(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(list, func(t *table) {
					t.row("ROLE", "ACTIONS", "FOR")
					for _, r := range list.Roles {
						t.row(r.Role, len(r.Actions), r.Description)
					}
				})
			})
		},
	}
}

func roleShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a role and its actions",
		Long:    "Shows a role with every action that it allows.",
		Example: "  keyturn role show application",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				r, err := s.Role(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(r, func(t *table) { roleTable(t, r) })
			})
		},
	}
}

func roleTable(t *table, r api.Role) {
	t.row("role", r.Role)
	t.row("for", r.Description)
	for _, action := range r.Actions {
		t.row("may", action)
	}
}

func whoamiCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say who you are to keyturn and what you may do",
		Long:    "Says as whom a command asks, by which method it was found out, and what that principal may do.",
		Example: "  keyturn whoami",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(s *store) error {
				w, err := s.WhoAmI(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(w, func(t *table) {
					t.row("principal", w.Principal)
					t.row("role", w.Role)
					t.row("by", w.Method)
					t.row("scope", strings.Join(w.Scope, " "))
					for _, action := range w.Actions {
						t.row("may", action)
					}
				})
			})
		},
	}
}
