//go:build pkcs11 && cgo && unix

package pkcs11

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// findToken finds the slot of the one token that an address names. not_found is worth another look after a restart.
func findToken(lib library, at address) (slot uint, info p11.TokenInfo, err error) {
	const what = "looking for the HSM's token"
	slots, err := lib.GetSlotList(true)
	if err != nil {
		return 0, info, failed(what, err)
	}
	found, silent := 0, error(nil)
	for _, s := range slots {
		i, err := lib.GetTokenInfo(s)
		if err != nil {
			silent = err // another token's trouble, unless ours isn't found
			continue
		}
		if i.Flags&p11.CKF_TOKEN_INITIALIZED == 0 || at.label != "" && i.Label != at.label || at.serial != "" && i.SerialNumber != at.serial {
			continue
		}
		found++
		slot, info = s, i
	}
	switch {
	case found == 1:
		return slot, info, nil
	case found > 1:
		return 0, info, fault.Newf(api.CodeWrongState, "%s: %d tokens have the name in the URL", what, found).WithField("token").
			WithNext("name one by its serial number too: serial=, as pkcs11-tool --list-slots prints it")
	case silent != nil:
		return 0, info, failed(what+": one doesn't answer", silent)
	}
	return 0, info, fault.New(api.CodeNotFound, what+": the module has none of that name").WithField("token").
		WithNext("compare token= and serial= in the URL with what pkcs11-tool --list-slots prints")
}

// template is how a key is found.
func (a address) template() []*p11.Attribute {
	t := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_TOKEN, true)}
	if a.object != "" {
		t = append(t, p11.NewAttribute(p11.CKA_LABEL, a.object))
	}
	if a.id != "" {
		t = append(t, p11.NewAttribute(p11.CKA_ID, a.id))
	}
	return t
}

// find lists at most two keys of an address: more than one is too many.
func find(lib library, s p11.SessionHandle, at address) ([]p11.ObjectHandle, error) {
	if err := lib.FindObjectsInit(s, at.template()); err != nil {
		return nil, err
	}
	var all []p11.ObjectHandle
	for len(all) < 2 {
		some, _, err := lib.FindObjects(s, 2)
		if err != nil {
			_ = lib.FindObjectsFinal(s)
			return nil, err
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	return all, lib.FindObjectsFinal(s)
}

// findKey finds the one key that an address names and refuses one that could leave the token.
func findKey(lib library, s p11.SessionHandle, at address) (p11.ObjectHandle, error) {
	const what = "looking for the master key on the HSM's token"
	all, err := find(lib, s, at)
	switch {
	case err != nil:
		return 0, failed(what, err)
	case len(all) == 0:
		return 0, fault.New(api.CodeNotFound, what+": it has no secret key of that name").WithField("object").
			WithNext("compare object= and id= in the URL with what pkcs11-tool --list-objects --login prints")
	case len(all) > 1:
		return 0, fault.New(api.CodeWrongState, what+": more than one key has the name in the URL").WithField("object").
			WithNext("name one by both object= and id=, or give the keys different ones")
	}
	return all[0], checkKey(lib, s, all[0])
}

// rules are the attributes that a master key must have, and the values. There is no way around them: a key that can be
// read out of the token is no HSM key, whatever its label says.
var rules = []struct {
	attribute uint
	name      string
	want      any
	why       string
}{
	{p11.CKA_KEY_TYPE, "CKA_KEY_TYPE", uint(p11.CKK_AES), "it must be an AES key"},
	{p11.CKA_VALUE_LEN, "CKA_VALUE_LEN", uint(32), "it must have 256 bits"},
	{p11.CKA_SENSITIVE, "CKA_SENSITIVE", true, "its value could be read"},
	{p11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false, "it could be wrapped and taken out of the token"},
	{p11.CKA_PRIVATE, "CKA_PRIVATE", true, "it could be used without the PIN"},
	{p11.CKA_ENCRYPT, "CKA_ENCRYPT", true, "it must encrypt"},
	{p11.CKA_DECRYPT, "CKA_DECRYPT", true, "it must decrypt"},
}

// checkKey holds a key to the rules. An attribute that the token doesn't tell is one that isn't right.
func checkKey(lib library, s p11.SessionHandle, h p11.ObjectHandle) error {
	for _, rule := range rules {
		want := p11.NewAttribute(rule.attribute, rule.want)
		got, err := lib.GetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(rule.attribute, nil)})
		if err != nil && !isError(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE) {
			return failed("reading the master key's attribute "+rule.name, err)
		}
		if err != nil || len(got) != 1 || string(got[0].Value) != string(want.Value) {
			return fault.Newf(api.CodeWrongState, "checking the master key on the HSM's token: %s is not %v: %s", rule.name, rule.want, rule.why).
				WithField(rule.name).WithNext(fmt.Sprintf("make a new key on the token with %s=%v (see docs/providers/pkcs11.md); a key that was extractable once stays suspect", rule.name, rule.want))
		}
	}
	return nil
}
