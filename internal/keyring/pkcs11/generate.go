//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"context"
	"crypto/rand"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keyring"
)

// Generate has the token make a new AES-256 key of the URL's label (object=), that never leaves it and does nothing but
// encrypt and decrypt. It refuses with conflict when a key of that label is there. Without id= its CKA_ID is random.
func (d *Driver) Generate(ctx context.Context, raw string) error {
	at, err := parse(raw)
	if err != nil {
		return err
	}
	if at.object == "" {
		return badURL("a new key needs a label (object=)")
	}
	m, err := d.modules.use(at.module)
	if err != nil {
		return err
	}
	defer m.release()
	if err := left(ctx); err != nil {
		return err
	}
	err = m.call(m.current(), func(lib library) error {
		slot, info, err := findToken(lib, at)
		if err != nil {
			return err
		}
		s, err := openSession(lib, slot, p11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		defer func() { _ = lib.CloseSession(s) }()
		if err := d.logIn(lib, s, at, info); err != nil {
			return err
		}
		return generate(lib, s, at)
	})
	if err != nil && !isFault(err) {
		return failed("making a master key on the HSM's token", err)
	}
	return err
}

func generate(lib library, s p11.SessionHandle, at address) error {
	there, err := find(lib, s, address{object: at.object})
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fault.New(api.CodeConflict, "making a master key on the HSM's token: a key of that label is there").WithField("object").
			WithNext("choose another label; two keys of one name could not be told apart")
	}
	id := []byte(at.id)
	if len(id) == 0 {
		id = make([]byte, 8)
		_, _ = rand.Read(id) // never fails: see crypto/rand
	}
	template := append(at.template()[:2:2], // class and token
		p11.NewAttribute(p11.CKA_LABEL, at.object), p11.NewAttribute(p11.CKA_ID, id),
		p11.NewAttribute(p11.CKA_MODIFIABLE, false),
		p11.NewAttribute(p11.CKA_WRAP, false), p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_SIGN, false), p11.NewAttribute(p11.CKA_VERIFY, false), p11.NewAttribute(p11.CKA_DERIVE, false))
	for _, rule := range rules {
		template = append(template, p11.NewAttribute(rule.attribute, rule.want))
	}
	made, err := lib.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
	if err != nil {
		return err
	}
	return checkKey(lib, s, made)
}

var _ keyring.Generator = (*Driver)(nil)
