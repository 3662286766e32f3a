// Package vaultkv is the master-key provider for a key in the KV secrets engine, version 1 or 2, of HashiCorp Vault or
// OpenBao:
//
//	vaultkv:///MOUNT/PATH?field=value
//
// The field (default "value") holds 32 bytes in base64 (see keyring.ParseKeyText). They come to us and we wrap: Vault is asked
// when the key is opened, not for every key-encryption key, and its outage matters at the next start or check only. Where the
// server is and who we are stands in the environment: see package vault. docs/providers/vaultkv.md has the policy.
//
// The engine's version is asked of Vault, or said by version=1 or version=2 in the URL, where the first segment is then the
// mount. A secret of KV version 2 is always read in its newest version: to replace a master key, add the new one as another
// secret (keyturn master add) and remove the old one.
package vaultkv

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/material"
)

const scheme = "vaultkv"

// Driver opens and generates vaultkv:// master keys. The zero value signs in by the process's environment.
type Driver struct {
	// Vault says how the server is reached, for tests.
	Vault vault.Config
}

// Scheme is "vaultkv".
func (Driver) Scheme() string { return scheme }

// place is where a key lies, as its URL says.
type place struct {
	url, path, field string
	version          string // "1", "2", or empty: ask
}

var fieldName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// parse reads a URL. There is one spelling for each place, so that a key is found by its URL again.
func parse(raw string) (place, error) {
	u, err := keyring.ParseURL(raw, scheme)
	if err != nil {
		return place{}, err
	}
	path, ok := vault.ValidPath(u.EscapedPath())
	q, qerr := url.ParseQuery(u.RawQuery)
	p := place{url: raw, path: path, field: "value", version: q.Get("version")}
	canonical := scheme + ":///" + path
	separator := "?"
	if q.Has("field") {
		p.field = q.Get("field")
		canonical += separator + "field=" + p.field
		separator = "&"
	}
	if q.Has("version") {
		canonical += separator + "version=" + p.version
	}
	if !ok || qerr != nil || raw != canonical || !fieldName.MatchString(p.field) || q.Has("version") && p.version != "1" && p.version != "2" {
		return place{}, fault.New(api.CodeInvalid, "reading a master key's URL: after vaultkv:/// stand a mount and a path, then perhaps field and version").
			WithField(keyring.FieldURL).WithNext("write vaultkv:///secret/keyturn/master?field=value, with &version=1 or 2 behind it only if needed")
	}
	return p, nil
}

// Open fetches the key. Errors: invalid for the URL, the environment or the secret's form, not_found, denied, unavailable.
func (d Driver) Open(ctx context.Context, raw string) (keyring.MasterKey, error) {
	p, err := parse(raw)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.Vault.LimitOpen())
	defer cancel()
	client, err := vault.Dial(ctx, d.Vault)
	if err != nil {
		return nil, err
	}
	m, err := p.fetch(ctx, client)
	if err == nil {
		var held keyring.MasterKey
		if held, err = keyring.Hold(p.url, scheme, m); err == nil {
			return key{held, client}, nil
		}
	}
	_ = client.Close()
	return nil, err
}

// key keeps its sign-in alive for as long as it is open, so that the next check (which opens the key anew) finds a token that
// lives.
type key struct {
	keyring.MasterKey
	client *vault.Client
}

func (k key) Close() error {
	_ = k.client.Close()
	return k.MasterKey.Close()
}

func (p place) fetch(ctx context.Context, client *vault.Client) (*material.Bytes, error) {
	at, v2, err := p.locate(ctx, client)
	if err != nil {
		return nil, err
	}
	answer, err := client.Read(ctx, at)
	if fault.CodeOf(err) == api.CodeNotFound {
		return nil, p.missing("there is no secret, or its newest version is deleted")
	}
	if err != nil {
		return nil, fault.Wrap("", err, "reading the master key in Vault")
	}
	defer clear(answer)
	text, err := p.value(answer, v2)
	if err != nil {
		return nil, err
	}
	m, err := keyring.ParseKeyText(text)
	if err != nil {
		return nil, fault.Wrap("", err, "reading the master key in Vault, field "+p.field)
	}
	return m, nil
}

// locate finds the path to ask for, and whether the engine is of version 2.
func (p place) locate(ctx context.Context, client *vault.Client) (at string, v2 bool, err error) {
	mount, version := p.path[:strings.IndexByte(p.path, '/')+1], p.version
	if version == "" {
		m, err := client.MountOf(ctx, p.path)
		if err != nil {
			return "", false, fault.Wrap("", err, "looking for the master key's mount in Vault")
		}
		if m.Type != "kv" && m.Type != "generic" {
			return "", false, fault.New(api.CodeInvalid, "reading the master key in Vault: what is mounted there is no KV secrets engine")
		}
		if mount, version = m.Path, m.Options["version"]; len(p.path) <= len(mount) {
			return "", false, p.missing("the path is a mount itself")
		}
	}
	if version == "2" {
		return mount + "data/" + p.path[len(mount):], true, nil
	}
	return p.path, false, nil
}

// value finds the field's text in an answer, inside it or in a copy that the caller wipes with it.
func (p place) value(answer []byte, v2 bool) ([]byte, error) {
	var a struct{ Data json.RawMessage }
	if json.Unmarshal(answer, &a) != nil {
		return nil, fault.New(api.CodeUnavailable, "reading the master key in Vault: it answered no secret")
	}
	defer clear(a.Data)
	data := a.Data
	if v2 {
		var inner struct{ Data json.RawMessage }
		if json.Unmarshal(data, &inner) != nil {
			return nil, fault.New(api.CodeUnavailable, "reading the master key in Vault: it answered no secret of KV version 2")
		}
		defer clear(inner.Data)
		data = inner.Data
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil || len(fields) == 0 {
		return nil, fault.New(api.CodeUnavailable, "reading the master key in Vault: it answered no secret")
	}
	for name, raw := range fields {
		if name != p.field {
			clear(raw)
		}
	}
	raw, ok := fields[p.field]
	if !ok {
		return nil, p.missing("the secret has no field " + p.field)
	}
	text, ok := unquote(raw)
	if !ok {
		clear(raw)
		return nil, fault.New(api.CodeInvalid, "reading the master key in Vault: field "+p.field+" isn't a text of base64")
	}
	return text, nil
}

// unquote gives the text inside a JSON string that needs no unescaping, as base64 doesn't, in place: a Go string couldn't be
// wiped. White space at its end, as `vault kv put … value=@file` leaves it, is cut.
func unquote(raw []byte) ([]byte, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, false
	}
	text := raw[1 : len(raw)-1]
	for {
		shorter := bytes.TrimSuffix(bytes.TrimSuffix(bytes.TrimRight(text, " "), []byte(`\n`)), []byte(`\r`))
		if len(shorter) == len(text) {
			break
		}
		text = shorter
	}
	return text, !bytes.ContainsRune(text, '\\')
}

func (p place) missing(why string) error {
	return fault.New(api.CodeNotFound, "reading the master key in Vault: "+why).
		WithNext("check the mount, the path and the field with vault kv get, or make the key there: keyturn master generate --at URL")
}
