package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/fault"
)

// The answers of this file hold nothing of the store: they say what the documentation says, and what concerns the caller
// himself. So they need no right but to be known, and leave no event.

var errNobody = fault.New(api.CodeUnauthenticated, "nobody is signed in")

// Roles lists the roles.
func (s *Service) Roles(_ context.Context, c *access.Caller) (api.RoleList, error) {
	if c == nil || c.Principal == nil {
		return api.RoleList{}, errNobody
	}
	var out api.RoleList
	for _, r := range access.Roles() {
		out.Roles = append(out.Roles, roleView(r))
	}
	return out, nil
}

// Role is one of them.
func (s *Service) Role(_ context.Context, c *access.Caller, name string) (api.Role, error) {
	if c == nil || c.Principal == nil {
		return api.Role{}, errNobody
	}
	r, ok := access.RoleByName(name)
	if !ok {
		return api.Role{}, fault.New(api.CodeNotFound, "there is no such role").WithField("role").WithNext("see keyturn role list")
	}
	return roleView(r), nil
}

// WhoAmI is the caller as the server sees it.
func (s *Service) WhoAmI(_ context.Context, c *access.Caller) (api.WhoAmI, error) {
	if c == nil || c.Principal == nil {
		return api.WhoAmI{}, errNobody
	}
	p := c.Principal
	return api.WhoAmI{
		Principal: p.Name, Role: p.Role, Method: c.Method, Actions: actionNames(access.Rights(p)), Scope: append([]string{}, p.Scope...),
	}, nil
}
