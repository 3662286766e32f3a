package keyring

import (
	"encoding/hex"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/material"
)

// EscrowShare is one person's part of an escrow key: any Threshold of the Total shares of one Set give the key back, fewer
// tell nothing about it. What is exported is public; it prints without its secret.
type EscrowShare struct {
	Name      string // where it was read, for errors; may be empty
	Set       string // the fingerprint of the key that was split, as MasterKey.ID: it names the set, and commits to the key
	Threshold int
	Index     int // from 1
	Total     int

	part material.Share
}

// FieldShare is the field of errors about shares.
const FieldShare = "share-file"

// SplitKey makes the shares of a 32-byte master key, which stays the caller's. Errors: invalid for the numbers.
func SplitKey(m *material.Bytes, threshold, total int) ([]EscrowShare, error) {
	id, err := fingerprint(m)
	if err != nil {
		return nil, err
	}
	parts, err := material.Split(m, threshold, total)
	if err != nil {
		return nil, err
	}
	shares := make([]EscrowShare, len(parts))
	for i, p := range parts {
		shares[i] = EscrowShare{Set: hex.EncodeToString(id[:]), Threshold: threshold, Index: int(p.X), Total: total, part: p}
	}
	return shares, nil
}

// CombineShares gives the master key back that shares are of, and proves it by its fingerprint, which every share carries.
// More shares than the threshold must all fit. The shares stay the caller's. Errors, each naming the shares: invalid for
// shares of two sets, too few, the same one twice; integrity when they don't give the key that they say.
func CombineShares(shares []EscrowShare) (*material.Bytes, error) {
	if len(shares) == 0 {
		return nil, shareFault(api.CodeInvalid, "combining shares: there is none")
	}
	for i, s := range shares {
		if err := fits(shares[:i], s); err != nil {
			return nil, err
		}
	}
	first := shares[0]
	parts := make([]material.Share, len(shares))
	for i, s := range shares {
		parts[i] = s.part
	}
	if len(shares) < first.Threshold {
		return nil, shareFault(api.CodeInvalid, "combining shares: %d of the %d that are needed are here", len(shares), first.Threshold).
			WithNext("bring more of the shares of set " + first.Set)
	}
	m, err := material.Combine(parts)
	if err != nil {
		return nil, shareFault(fault.CodeOf(err), "combining shares: they can't be of one key")
	}
	id, err := fingerprintOf(m)
	if err == nil && id != first.Set {
		err = shareFault(api.CodeIntegrity, "combining shares: they don't give the key that they were made of, so one of them isn't what it says").
			WithNext("try other shares of the set in the place of each; whose place is the wrong one's is then known")
	}
	if err != nil {
		m.Destroy()
		return nil, err
	}
	return m, nil
}

// fits says whether a share goes together with those before it.
func fits(before []EscrowShare, s EscrowShare) error {
	for _, b := range before {
		switch {
		case b.Set != s.Set:
			return shareFault(api.CodeInvalid, "combining shares: %s and %s are of two different sets", b.name(), s.name()).
				WithNext("bring shares of one set; each names its set: keyturn escrow verify --share-file FILE")
		case b.Threshold != s.Threshold || b.Total != s.Total:
			return shareFault(api.CodeIntegrity, "combining shares: %s and %s say different things of one set", b.name(), s.name())
		case b.Index == s.Index && b.part.Y.Equal(s.part.Y):
			return shareFault(api.CodeInvalid, "combining shares: %s and %s are the same share", b.name(), s.name()).
				WithNext("bring another share in the place of one of them")
		case b.Index == s.Index:
			return shareFault(api.CodeIntegrity, "combining shares: %s and %s are both share %d, and differ", b.name(), s.name(), s.Index)
		}
	}
	return nil
}

// Destroy wipes the share.
func (s EscrowShare) Destroy() { s.part.Y.Destroy() }

// name is how errors call a share.
func (s EscrowShare) name() string {
	if s.Name == "" {
		return "a share"
	}
	return s.Name
}

// fingerprintOf is the ID that a master key of these bytes has.
func fingerprintOf(m *material.Bytes) (string, error) {
	if m.Len() != envelope.KeySize {
		return "", shareFault(api.CodeIntegrity, "combining shares: what they give is no master key")
	}
	id, err := fingerprint(m)
	return hex.EncodeToString(id[:]), err
}

func shareFault(code api.Code, format string, args ...any) *fault.Error {
	return fault.Newf(code, format, args...).WithField(FieldShare)
}
