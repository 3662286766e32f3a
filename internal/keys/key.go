package keys

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
)

// Key is a named data-encryption key, made of versions. It is a value, but Versions is shared between copies: whoever
// changes a key that others may see works on a Clone.
type Key struct {
	ID                envelope.KeyID
	Name              string // unique in the store, see ValidateName
	Purpose           Purpose
	Algorithm         Algorithm
	Suite             envelope.Suite // which form new ciphertexts take
	Cryptoperiod      Cryptoperiod
	SuspendedDecrypts bool // whether suspended versions still open what they sealed
	ByPolicy          bool // the policies say how long a version protects, and Cryptoperiod.Period is 0
	Created           time.Time
	Revision          int64     // of the stored row, for optimistic updates
	MAC               string    // of the stored row and its versions, made and checked by package kms
	Versions          []Version // ascending and dense from 1
}

// Version is one generation of a key's material.
type Version struct {
	Number     uint32
	State      State
	PriorState State  // what undestroy returns to from destroy-scheduled; of suspended, deactivated if it was; empty otherwise
	Seq        uint32 // number of transitions so far; the wrapped material is bound to it

	Created    time.Time
	Activated  time.Time // first activation; the cryptoperiod counts from here
	Expires    time.Time // Activated + Period; absent without a limit by age
	DestroyAt  time.Time // when a scheduled destruction falls due
	Destroyed  time.Time
	LastOpened time.Time // last use for decryption, to the minute

	Operations uint64 // protected under this version; reserved in blocks, so never too low
	Bytes      uint64

	KEK     KEKID  // which key-encryption key Wrapped stands under
	Wrapped []byte // the material, sealed; nil once destroyed
	Sample  []byte // a text of ours that the version sealed when it was made; nil for older ones and once destroyed

	Reason, Actor string // of the last transition

	// ForceBy is the id of the principal who asked, at ForceAt, that the version be destroyed whatever depends on it. While
	// its destruction is scheduled, a second one has agreed.
	ForceBy string
	ForceAt time.Time
}

// Spec is what a new key is made from. Zero values of Purpose, Algorithm and Suite take the defaults data, aes-256-gcm
// and the algorithm's first suite; a zero Cryptoperiod has no limit.
type Spec struct {
	Name              string
	Purpose           Purpose
	Algorithm         Algorithm
	Suite             envelope.Suite
	Cryptoperiod      Cryptoperiod
	SuspendedDecrypts bool
	ByPolicy          bool
}

// NewKey checks a spec and makes a key without versions; Rotate gives it the first one.
func NewKey(id envelope.KeyID, spec Spec, now time.Time) (Key, error) {
	spec = spec.withDefaults()
	if id.IsZero() {
		return Key{}, fault.New(api.CodeInternal, "creating a key: the key id is zero")
	}
	if err := spec.validate(); err != nil {
		return Key{}, err
	}
	return Key{
		ID: id, Name: spec.Name, Purpose: spec.Purpose, Algorithm: spec.Algorithm, Suite: spec.Suite,
		Cryptoperiod: spec.Cryptoperiod, SuspendedDecrypts: spec.SuspendedDecrypts, ByPolicy: spec.ByPolicy, Created: stamp(now),
	}, nil
}

func (s Spec) withDefaults() Spec {
	if s.Purpose == "" {
		s.Purpose = PurposeData
	}
	if s.Algorithm == "" {
		s.Algorithm = AES256GCM
	}
	if suites := s.Algorithm.Suites(); s.Suite == 0 && len(suites) > 0 {
		s.Suite = suites[0]
	}
	return s
}

func (s Spec) validate() error {
	if err := ValidateName(s.Name); err != nil {
		return err
	}
	if err := s.Purpose.Validate(); err != nil {
		return err
	}
	if err := s.Algorithm.Validate(); err != nil {
		return err
	}
	if !slices.Contains(s.Algorithm.Suites(), s.Suite) {
		return fault.Newf(api.CodeInvalid, "creating a key: the suite doesn't belong to algorithm %s", s.Algorithm).
			WithField("suite").WithNext("leave the suite out to get the algorithm's default")
	}
	if s.ByPolicy && s.Cryptoperiod.Period != 0 {
		return fault.New(api.CodeInternal, "creating a key: it has a period of its own, and is to have the policies'")
	}
	return s.Cryptoperiod.Validate()
}

// Clone copies the key and its versions deeply enough that changing one leaves the other alone. Wrapped blobs are
// shared: they are replaced, never written into.
func (k Key) Clone() Key {
	k.Versions = slices.Clone(k.Versions)
	return k
}

// Whole is an error of code integrity when the versions aren't numbered from 1 without a gap, as no key is that keyturn
// wrote.
func (k Key) Whole() error {
	for i, v := range k.Versions {
		if uint64(v.Number) != uint64(i)+1 {
			return fault.Newf(api.CodeIntegrity, "reading key %s: version %d is missing", k.Name, i+1).
				WithNext("restore the key's rows from a backup")
		}
	}
	return nil
}

// Active is the version that protects new data. False means that the key is disabled or suspended, or has no version.
func (k Key) Active() (Version, bool) {
	// The active version is nearly always the newest.
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if k.Versions[i].State == Active {
			return k.Versions[i], true
		}
	}
	return Version{}, false
}

// Version finds a version by its number.
func (k Key) Version(n uint32) (Version, bool) {
	if v := k.at(n); v != nil {
		return *v, true
	}
	return Version{}, false
}

// at points into Versions; numbers are dense from 1, so the place is known.
func (k Key) at(n uint32) *Version {
	if n == 0 || uint64(n) > uint64(len(k.Versions)) || k.Versions[n-1].Number != n {
		return nil
	}
	return &k.Versions[n-1]
}

// stamp brings a time into the form in which both databases keep it.
func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
