package kms

import (
	"context"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/access"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/failpoint"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/gate"
	"github.com/keyturn/keyturn/internal/jobs"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
	"github.com/keyturn/keyturn/internal/store"
)

// Create makes a key with its first version, active as soon as it is committed. Errors: invalid, conflict when the name
// is taken.
func (s *Service) Create(ctx context.Context, c *access.Caller, in api.CreateKeyRequest) (api.Key, error) {
	spec, err := specOf(in)
	if err != nil {
		return api.Key{}, err
	}
	k, moves, err := s.newKey(c, spec, "created")
	if err != nil {
		return api.Key{}, err
	}
	intent := gate.Intent{Action: access.KeyCreate, Type: audit.KeyCreate, Verb: "created", Resource: keyResource(k.Name)}
	return s.insert(ctx, c, intent, k, moves, func(next *keys.Key) error { return s.ring.Fill(ctx, next, 1) })
}

// newKey is a key with its first version, which has no material yet.
func (s *Service) newKey(c *access.Caller, spec keys.Spec, reason string) (keys.Key, []keys.Transition, error) {
	now := s.clock()
	k, err := keys.NewKey(envelope.NewKeyID(), spec, now)
	if err != nil {
		return keys.Key{}, nil, err
	}
	moves, err := k.Rotate(now, actor(c), reason, 0)
	return k, moves, err
}

// insert writes a new key with its event. fill gives version 1 its material, in the transaction: when that runs again, because
// another node replaced the key-encryption keys, it is wrapped anew.
func (s *Service) insert(ctx context.Context, c *access.Caller, in gate.Intent, bare keys.Key, moves []keys.Transition, fill func(*keys.Key) error) (api.Key, error) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return api.Key{}, err
	}
	var k keys.Key
	err = s.gate.Change(ctx, c, in, func(ctx context.Context, tx store.Tx, ev *audit.Event) error {
		k = bare.Clone()
		if err := fill(&k); err != nil {
			return err
		}
		if err := s.sample(ctx, &k, 1); err != nil {
			return err
		}
		ev.KeyVersion = 1
		ev.Details.NewVersion = 1
		ev.Details.Purpose, ev.Details.Algorithm = string(k.Purpose), string(k.Algorithm)
		due := rules.Times(&k).Due
		ev.Details.NextRotationDue, ev.Details.ComplianceStatus = due, compliant
		if err := tx.CreateKey(ctx, k); err != nil {
			return err
		}
		if err := tx.AddTransitions(ctx, k.ID, moves); err != nil || due.IsZero() {
			return err
		}
		return tx.BringForward(ctx, jobs.RotationCheck, due)
	})
	failpoint.Hit("kms/after-create")
	s.ring.Drop(bare.ID)
	return s.shown(k, err)
}

// specOf reads a request with its documented defaults.
func specOf(in api.CreateKeyRequest) (keys.Spec, error) {
	spec := keys.Spec{
		Name: in.Name, Purpose: keys.Purpose(in.Purpose), Algorithm: keys.Algorithm(in.Algorithm),
		Cryptoperiod:      keys.Cryptoperiod{MaxOperations: in.MaxOperations, MaxBytes: in.MaxBytes},
		SuspendedDecrypts: in.SuspendedDecrypts,
		ByPolicy:          in.Period == "",
	}
	var err error
	if spec.Suite, err = suiteOf(in.Suite); err != nil {
		return spec, err
	}
	if in.Period != "" {
		spec.Cryptoperiod.Period, err = keys.ParseCryptoperiod(in.Period)
	}
	return spec, err
}

// suiteOf keeps a number of another width from becoming a suite by being cut.
func suiteOf(n int) (envelope.Suite, error) {
	if n < 0 || n > 255 {
		return 0, fault.New(api.CodeInvalid, "the suite is unknown").WithField("suite").WithNext("leave it out to get the default")
	}
	return envelope.Suite(n), nil
}

// Import brings material from elsewhere in: as the first version of a new key, or as the next, active version of one
// that exists; the latter also takes key.encrypt and key.decrypt, and material that no version of the key has (conflict). in.Version says which one it must become. It takes ownership of in.Material and wipes it. Purpose,
// algorithm, suite and period are for a new key; of one that exists they must be left out or agree.
func (s *Service) Import(ctx context.Context, c *access.Caller, name string, in api.ImportKeyRequest) (api.Key, error) {
	defer clear(in.Material)
	if err := checkImport(name, in); err != nil {
		return api.Key{}, err
	}
	intent := gate.Intent{Action: access.KeyImport, Type: audit.KeyCreate, Verb: "imported", Resource: keyResource(name), Reason: in.Reason}
	if allowed(c, access.KeyImport, keyResource(name)) {
		_, err := s.stored(ctx, name)
		if fault.CodeOf(err) == api.CodeNotFound {
			return s.importNew(ctx, c, intent, name, in)
		}
		if err := s.mayReplace(ctx, c, intent); err != nil {
			return api.Key{}, err
		}
	}
	return s.shown(s.changeKey(ctx, c, intent, name, func(k *keys.Key, ev *audit.Event) ([]keys.Transition, error) {
		if err := sameKind(k, in); err != nil {
			return nil, err
		}
		if err := k.ExpectNext(in.Version); err != nil {
			return nil, err
		}
		if err := s.newMaterial(ctx, k, in.Material); err != nil { // before the rotation: it unwraps versions as they stand in the store
			return nil, err
		}
		moves, err := s.rotateStep(k, ev, c, actor(c), in.Reason, 0)
		if err != nil {
			return nil, err
		}
		return moves, s.ring.FillWith(ctx, k, ev.KeyVersion, material.New(append([]byte(nil), in.Material...)))
	}))
}

// newMaterial refuses material that a version of the key has already: a rotation to it would be none, and marking the one
// compromised would leave its twin in use. Only who may open what the key sealed gets here (mayReplace), so he
// learns nothing. Versions that were destroyed, or that don't open, can't be compared.
func (s *Service) newMaterial(ctx context.Context, k *keys.Key, raw []byte) error {
	m := material.New(append([]byte(nil), raw...))
	defer m.Destroy()
	for _, v := range k.Versions {
		if len(v.Wrapped) == 0 {
			continue
		}
		old, err := s.ring.Export(ctx, k, v.Number)
		if code := fault.CodeOf(err); code == api.CodeIntegrity || code == api.CodeWrongState {
			continue // a row that was changed, which doctor names, is no reason against another key
		}
		if err != nil {
			return err
		}
		same := old.Equal(m)
		old.Destroy()
		if same {
			return fault.Newf(api.CodeConflict, "importing a key: version %d of key %s has this very material", v.Number, k.Name).WithField("material").
				WithNext("import other material, or have keyturn make some: keyturn key rotate " + k.Name)
		}
	}
	return nil
}

// mayReplace refuses to make material that the caller knows what an existing key protects with from now on, unless he may
// use that key anyway: it would be a way to use it, past every record.
func (s *Service) mayReplace(ctx context.Context, c *access.Caller, in gate.Intent) error {
	for _, a := range []access.Action{access.KeyEncrypt, access.KeyDecrypt} {
		if allowed(c, a, in.Resource) {
			continue
		}
		in.Action = a
		err := s.refuse(ctx, c, in, func(*audit.Event) {}, fault.New(api.CodeDenied, "the rights of the caller changed meanwhile"))
		return fault.Wrap("", err, "importing into a key that exists").
			WithNext("import under a new name, or have it done by somebody who may encrypt and decrypt with the key")
	}
	return nil
}

func (s *Service) importNew(ctx context.Context, c *access.Caller, intent gate.Intent, name string, in api.ImportKeyRequest) (api.Key, error) {
	spec, err := specOf(api.CreateKeyRequest{Name: name, Purpose: in.Purpose, Algorithm: in.Algorithm, Suite: in.Suite, Period: in.Period})
	if err != nil {
		return api.Key{}, err
	}
	k, moves, err := s.newKey(c, spec, in.Reason)
	if err != nil {
		return api.Key{}, err
	}
	if in.Version > 1 {
		return api.Key{}, s.refuse(ctx, c, intent, func(*audit.Event) {}, (&keys.Key{}).ExpectNext(in.Version))
	}
	return s.insert(ctx, c, intent, k, moves, func(k *keys.Key) error {
		return s.ring.FillWith(ctx, k, 1, material.New(append([]byte(nil), in.Material...)))
	})
}

func checkImport(name string, in api.ImportKeyRequest) error {
	if err := keyNamed(name); err != nil {
		return err
	}
	if len(in.Material) != envelope.KeySize {
		return fault.Newf(api.CodeInvalid, "importing a key: the material is not %d bytes", envelope.KeySize).WithField("material").
			WithNext("give the key itself: 32 bytes, raw, in base64 or in hexadecimal")
	}
	weak := true
	for _, b := range in.Material {
		weak = weak && b == in.Material[0]
	}
	if weak {
		return fault.New(api.CodeInvalid, "importing a key: the bytes of the material are all the same").WithField("material").
			WithNext("make a real key: openssl rand -base64 32, or keyturn key create")
	}
	return nil
}

// sameKind refuses to import into a key that is of another kind than the request says.
func sameKind(k *keys.Key, in api.ImportKeyRequest) error {
	period, err := keys.ParseCryptoperiod(in.Period)
	for _, q := range []struct {
		field string
		other bool
	}{
		{"purpose", in.Purpose != "" && in.Purpose != string(k.Purpose)},
		{"algorithm", in.Algorithm != "" && in.Algorithm != string(k.Algorithm)},
		{"suite", in.Suite != 0 && in.Suite != int(k.Suite)},
		{"period", in.Period != "" && (err != nil || period != k.Cryptoperiod.Period)},
	} {
		if q.other {
			return fault.Newf(api.CodeConflict, "importing a key: key %s exists and has another %s", k.Name, q.field).WithField(q.field).
				WithNext("leave it out, or import under another name")
		}
	}
	return nil
}
