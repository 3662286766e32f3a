package keyring

import (
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/keys"
	"github.com/keyturn/keyturn/internal/material"
)

// openKEK is a key-encryption key that is open. It is never changed.
type openKEK struct {
	id      keys.KEKID
	purpose keys.KEKPurpose
	active  bool
	key     *envelope.Key
	print   []byte // tells whether another opening gave the same key; see samePrint
}

// Open reads the KEKs of the store and opens each under the first master key that can. Call it at the start, and again
// after a transaction that stored KEKs; Refresh does so after those of other processes. Start-up costs one unwrapping per KEK and doesn't grow with the number of keys.
//
// It fails when one KEK opens under none: with integrity when the master keys are the wrong ones, else with the code of
// the master key that could not be used. After an error the ring is as it was.
func (r *Ring) Open(ctx context.Context) error {
	if r.IsShut() {
		return r.Usable()
	}
	opened, err := r.openWith(ctx, r.Masters())
	if err != nil {
		return err
	}
	r.install(opened)
	return nil
}

// Refresh opens the KEKs anew where others are active in the store than in this ring: another process made a generation, or
// this one did and could not open it. Otherwise it costs one reading of the store, and no master key is asked. Errors are those of
// Open.
func (r *Ring) Refresh(ctx context.Context) error {
	_, err := r.renewals.do(ctx, r.Generation(), func(ctx context.Context) (struct{}, error) {
		records, err := r.src.KEKs(ctx)
		if err == nil && !r.hasActive(records) {
			err = r.Open(ctx)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fault.Wrap("", err, "looking for new key-encryption keys")
	}
	return nil
}

// hasActive says whether what records call active is what the ring wraps under.
func (r *Ring) hasActive(records []keys.KEK) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, rec := range records {
		k := r.active[rec.Purpose]
		if same := k != nil && k.id == rec.ID; same != rec.Active {
			return false
		}
	}
	return true
}

func (r *Ring) openWith(ctx context.Context, masters []MasterKey) ([]*openKEK, error) {
	records, err := r.src.KEKs(ctx)
	if err != nil {
		return nil, fault.Wrap("", err, "reading the key-encryption keys")
	}
	if err := newestActive(records); err != nil {
		return nil, err
	}
	if err := r.noneLost(records); err != nil {
		return nil, err
	}
	opened := make([]*openKEK, len(records))
	err = overCores(len(records), func(i int) (err error) {
		opened[i], err = r.openKEK(ctx, records[i], masters)
		return err
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// newestActive refuses rows in which another generation of a purpose than the highest is active: nothing that keyturn does
// leaves that, and who knows an older KEK and can write to the database would have new keys wrapped under his. The
// generation is bound into the wrapping; the mark of being active is only a column.
func newestActive(records []keys.KEK) error {
	newest := map[keys.KEKPurpose]keys.KEK{}
	for _, rec := range records {
		if was, ok := newest[rec.Purpose]; !ok || rec.Version > was.Version {
			newest[rec.Purpose] = rec
		}
	}
	for _, rec := range records {
		if top := newest[rec.Purpose]; rec.Active != (rec.ID == top.ID) {
			return fault.Newf(api.CodeIntegrity, "opening the key-encryption keys: generation %d of purpose %s should be the active one and isn't, or isn't alone", top.Version, rec.Purpose).
				WithNext("somebody changed the table keks: put it back from a backup, and treat the older generations as known to him")
		}
	}
	return nil
}

// noneLost refuses rows of which the newest generation, which this process has open, was taken away: what is left could have been put
// back by who knows an older one.
func (r *Ring) noneLost(records []keys.KEK) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for purpose, k := range r.active {
		generation := k.key.Header().Version
		if !slices.ContainsFunc(records, func(rec keys.KEK) bool { return rec.ID == k.id || rec.Purpose == purpose && rec.Version > generation }) {
			return fault.Newf(api.CodeIntegrity, "opening the key-encryption keys: generation %d of purpose %s was there and is gone", generation, purpose).
				WithNext("somebody changed the table keks: put it back from a backup, and treat the older generations as known to him")
		}
	}
	return nil
}

func (r *Ring) openKEK(ctx context.Context, rec keys.KEK, masters []MasterKey) (*openKEK, error) {
	id, err := envelope.ParseKeyID(string(rec.ID))
	if err != nil {
		return nil, fault.Wrap(api.CodeIntegrity, err, "reading a key-encryption key")
	}
	m, err := r.unwrapKEK(ctx, rec, masters)
	if err != nil {
		return nil, err
	}
	return loadKEK(id, rec, m)
}

// loadKEK makes a KEK ready for use. It takes ownership of m.
func loadKEK(id envelope.KeyID, rec keys.KEK, m *material.Bytes) (_ *openKEK, err error) {
	k := &openKEK{id: rec.ID, purpose: rec.Purpose, active: rec.Active}
	material.Secretly(func() {
		if k.key, err = envelope.NewKey(id, rec.Version, envelope.SuiteStandard, "kek/"+string(rec.Purpose), m); err == nil {
			k.print, err = k.key.AppendDerived(nil, "kek-print", nil, envelope.KeySize)
		}
	})
	if err != nil {
		return nil, fault.Wrap(api.CodeIntegrity, err, "loading a key-encryption key")
	}
	return k, nil
}

// install makes opened the KEKs in use.
func (r *Ring) install(opened []*openKEK) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keks, r.active = map[keys.KEKID]*openKEK{}, map[keys.KEKPurpose]*openKEK{}
	for _, k := range opened {
		r.keks[k.id] = k
		if k.active {
			r.active[k.purpose] = k
		}
	}
}

// unwrapKEK opens a KEK under the first of masters that can. Where none does, the error says why of each.
func (r *Ring) unwrapKEK(ctx context.Context, rec keys.KEK, masters []MasterKey) (*material.Bytes, error) {
	var failed, strange refusals
	escrowed := 0
	for _, master := range masters {
		if master.Kind() == Escrow { // its bytes come out of the open store: it must never be what keeps one open
			escrowed++
			continue
		}
		_, broken := master.(*unopened)
		blob := wrappingUnder(rec, master)
		if blob == nil && !broken { // another key than those that the store knows
			strange.add(master, fault.New(api.CodeIntegrity, "the store isn't wrapped under it").WithField(FieldURL).WithNext(configureOne(rec)))
			continue
		}
		m, err := master.Unwrap(ctx, blob, r.kekBinding(rec))
		if err == nil {
			return m, nil
		}
		failed.add(master, err)
	}
	switch {
	case len(masters) == 0:
		return nil, fault.New(api.CodeUnavailable, "opening the key-encryption keys: no master key is configured").
			WithField(FieldURL).WithNext("name one under masterKeys in keyturn.yaml")
	case escrowed == len(masters):
		return nil, fault.New(api.CodeUnavailable, "opening the key-encryption keys: escrow:// is the only master key configured, and doesn't open a store by itself").
			WithField(FieldURL).WithNext(bringShares)
	case len(failed) == 0:
		return nil, fault.New(api.CodeIntegrity, "opening the key-encryption keys: the configured master key is another one than those that the store is wrapped under").
			WithField(FieldURL).WithNext(configureOne(rec) + "; if it opened the store before, it was removed on another node: keyturn master remove" + otherShares(rec))
	}
	failure := append(failed, strange...).err()
	err := fault.Wrap("", failure, "opening the key-encryption keys")
	if escrowed > 0 {
		return nil, err.WithNext(joined(fault.NextOf(failure), bringShares))
	}
	return nil, err
}

func configureOne(rec keys.KEK) string { return "configure one of: " + wrappedBy(rec) }

// otherShares is what to do with a key that shares gave and that opens nothing, where the store has a set: they aren't of it.
func otherShares(rec keys.KEK) string {
	i := slices.IndexFunc(rec.Wrappings, func(w keys.Wrapping) bool { return w.URL == EscrowURL })
	if i < 0 {
		return ""
	}
	return "; if escrow shares gave it, their set was replaced or never counted: bring the shares of set " + rec.Wrappings[i].MasterID
}

// wrappingUnder is the KEK's wrapping under one master key, nil when there is none.
func wrappingUnder(rec keys.KEK, master MasterKey) []byte {
	i := slices.IndexFunc(rec.Wrappings, func(w keys.Wrapping) bool { return w.MasterID == master.ID() })
	if i < 0 {
		return nil
	}
	return rec.Wrappings[i].Blob
}

// NewKEKs makes a new generation of the KEK of each purpose, wrapped under every master key. It returns what to store in
// one transaction: the new ones, active, and those they replace, not active any more and otherwise as they were read. Call
// Open once it is committed. Errors: conflict where the store is wrapped under master keys that this ring doesn't have.
func (r *Ring) NewKEKs(ctx context.Context, purposes []keys.KEKPurpose) ([]keys.KEK, error) {
	records, err := r.src.KEKs(ctx)
	if err != nil {
		return nil, fault.Wrap("", err, "reading the key-encryption keys")
	}
	if err := wrappable(records, r.Masters()); err != nil {
		return nil, err
	}
	var out []keys.KEK
	for _, purpose := range purposes {
		generation := uint32(0)
		for _, rec := range records {
			if rec.Purpose != purpose {
				continue
			}
			generation = max(generation, rec.Version)
			if rec.Active {
				rec.Active = false
				out = append(out, rec)
			}
		}
		rec, err := r.newKEK(ctx, purpose, generation+1)
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

func (r *Ring) newKEK(ctx context.Context, purpose keys.KEKPurpose, generation uint32) (keys.KEK, error) {
	rec := keys.KEK{
		ID: keys.KEKID(envelope.NewKeyID().String()), Purpose: purpose, Version: generation, Active: true,
		Created: time.Now().UTC().Truncate(time.Microsecond),
	}
	m := material.Random(envelope.KeySize)
	defer m.Destroy()
	var err error
	rec.Wrappings, err = r.wrapKEK(ctx, rec, m, r.Masters())
	return rec, err
}

// RewrapKEKs wraps every KEK of read, which is what the store holds, under masters, which may be others than those in use.
// Wrappings under master keys that aren't among them stay as they are, but for those that gone names (see kept). It returns
// what to store in one transaction, provided that read is still what is stored; call Use with the same masters once it
// is committed. No key and no data is touched.
func (r *Ring) RewrapKEKs(ctx context.Context, read []keys.KEK, masters []MasterKey, gone func(keys.Wrapping) bool) ([]keys.KEK, error) {
	records := slices.Clone(read)
	now := r.Masters()
	err := overCores(len(records), func(i int) error {
		m, err := r.unwrapKEK(ctx, records[i], now)
		if err != nil {
			return err
		}
		defer m.Destroy()
		records[i].Wrappings, err = r.wrapKEK(ctx, records[i], m, masters)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range records {
		records[i].Wrappings = append(records[i].Wrappings, kept(records[i].Wrappings, read[i].Wrappings, gone)...)
	}
	return records, nil
}

// Opens says whether a master key opens a store by itself, which all do but escrow.
func Opens(m MasterKey) bool { return m.Kind() != Escrow }

// wrapKEK wraps m under every one of masters. All must take part: a wrapping that is missing would be noticed on the day
// on which it is the only one left. For the same reason each is opened again before it counts.
func (r *Ring) wrapKEK(ctx context.Context, rec keys.KEK, m *material.Bytes, masters []MasterKey) ([]keys.Wrapping, error) {
	if !slices.ContainsFunc(masters, Opens) {
		return nil, fault.New(api.CodeInUse, "wrapping the key-encryption keys: without a master key beside escrow nothing would open the store again").
			WithField(FieldURL).WithNext("add another master key before removing the last one; a new store begins with another one, too")
	}
	b := r.kekBinding(rec)
	var wrappings []keys.Wrapping
	for _, master := range masters {
		if slices.ContainsFunc(wrappings, func(w keys.Wrapping) bool { return w.MasterID == master.ID() }) {
			continue // the same key configured twice
		}
		blob, err := master.Wrap(ctx, m, b)
		if err != nil {
			return nil, fault.Wrap("", err, "wrapping a key-encryption key under "+master.URL())
		}
		again, err := master.Unwrap(ctx, blob, b)
		if err != nil {
			return nil, fault.Wrap("", err, "opening a new wrapping again under "+master.URL())
		}
		same := again.Equal(m)
		again.Destroy()
		if !same {
			return nil, fault.New(api.CodeIntegrity, "opening a new wrapping again under "+master.URL()+": it holds other bytes")
		}
		wrappings = append(wrappings, keys.Wrapping{MasterID: master.ID(), URL: master.URL(), Blob: blob})
	}
	return wrappings, nil
}

// kekBinding is what a KEK's wrappings are bound to. The purpose stands in the kind, so that no KEK can change it.
func (r *Ring) kekBinding(rec keys.KEK) Binding {
	return Binding{Tenant: r.tenant, Kind: "kek/" + string(rec.Purpose), ID: string(rec.ID), Version: rec.Version}
}

// activeKEK is what new blobs of a purpose are wrapped under.
func (r *Ring) activeKEK(purpose keys.KEKPurpose) (*openKEK, error) {
	if err := r.Usable(); err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if k := r.active[purpose]; k != nil {
		return k, nil
	}
	return nil, fault.Newf(api.CodeUnavailable, "wrapping: no key-encryption key for %s is open", purpose).
		WithNext("check the master keys: keyturn master verify")
}

// kek finds an open KEK. One that isn't known may have been made by another node since, so the store is asked once more.
func (r *Ring) kek(ctx context.Context, id keys.KEKID) (*openKEK, error) {
	if err := r.Usable(); err != nil {
		return nil, err
	}
	if k := r.knownKEK(id); k != nil {
		return k, nil
	}
	_, err := r.openings.do(ctx, r.Generation(), func(ctx context.Context) (struct{}, error) { return struct{}{}, r.Open(ctx) })
	if err != nil {
		return nil, fault.Wrap("", err, "looking for key-encryption key "+string(id))
	}
	if k := r.knownKEK(id); k != nil {
		return k, nil
	}
	return nil, fault.New(api.CodeIntegrity, "looking for key-encryption key "+string(id)+": the store has none of that id")
}

func (r *Ring) knownKEK(id keys.KEKID) *openKEK {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keks[id]
}

// wrappedBy names the master keys that a KEK was wrapped under.
func wrappedBy(rec keys.KEK) (names string) {
	for i, w := range rec.Wrappings {
		if i > 0 {
			names += ", "
		}
		names += w.URL + " (fingerprint " + w.MasterID + ")"
	}
	return names
}
