package vaultkv

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
	"github.com/keyturn/keyturn/internal/keyring/vault"
	"github.com/keyturn/keyturn/internal/material"
)

// Generate writes a new random key where the URL says. Vault answers once it is durable there.
//
// KV version 2 writes it only if there never was a secret at the path (check-and-set 0; a deleted one counts). Version 1 has
// no such condition: the path is read first, and a secret that somebody writes in the same instant is replaced.
func (d Driver) Generate(ctx context.Context, raw string) error {
	p, err := parse(raw)
	if err != nil {
		return err
	}
	client, err := vault.Dial(ctx, d.Vault)
	if err != nil {
		return err
	}
	defer client.Close()
	at, v2, err := p.locate(ctx, client)
	if err != nil {
		return err
	}
	if !v2 {
		answer, err := client.Read(ctx, at)
		clear(answer)
		if err == nil {
			return occupied()
		}
		if fault.CodeOf(err) != api.CodeNotFound {
			return fault.Wrap("", err, "looking whether there is a secret already")
		}
	}
	_, err = client.Write(ctx, at, p.secret(v2))
	if v2 && fault.CodeOf(err) == api.CodeInvalid {
		return occupied()
	}
	if err != nil {
		return fault.Wrap("", err, "writing the master key to Vault")
	}
	return nil
}

// secret is the body that writes a new key. Names and base64 need no escaping in JSON.
func (p place) secret(v2 bool) []byte {
	m := material.Random(envelope.KeySize)
	defer m.Destroy()
	body := make([]byte, 0, 256) // enough not to grow, which would leave a copy behind
	if v2 {
		body = append(body, `{"options":{"cas":0},"data":`...)
	}
	body = append(append(append(body, `{"`...), p.field...), `":"`...)
	body = append(keyring.AppendText(body, m), `"}`...)
	if v2 {
		body = append(body, '}')
	}
	return body
}

func occupied() error {
	return fault.New(api.CodeConflict, "writing the master key to Vault: there is a secret at this path, or was").
		WithNext("choose another path; replacing a master key that is in use would lock the store")
}
