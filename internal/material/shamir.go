package material

import (
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// Bounds of Split: a threshold of one would be a copy for everybody; more than sixteen people never meet on a bad day.
const (
	MinThreshold = 2
	MaxThreshold = 16
	MaxShares    = 64 // far below the field's 255
)

// Share is one part of a secret that was split: the point X of a polynomial for each byte of the secret. Y is as long as
// the secret, and as secret: enough shares are the secret.
type Share struct {
	X byte // never zero: that is where the secret lies
	Y *Bytes
}

// Split makes total shares of a secret, any threshold of which give it back and fewer tell nothing about it, not even to
// somebody who can try every key (Shamir 1979, over GF(2^8) with the polynomial of AES). The secret stays the caller's.
//
// Everything that touches a secret byte is arithmetic without a branch or a table, so that neither time nor cache lines
// tell what it was (CVE-2023-25000).
func Split(secret *Bytes, threshold, total int) ([]Share, error) {
	if err := CheckSplit(threshold, total); err != nil {
		return nil, err
	}
	if secret.Len() == 0 {
		return nil, fault.New(api.CodeInvalid, "splitting a secret: there is none")
	}
	n := secret.Len()
	// The coefficients of x^1 … x^(threshold-1), each one byte for each byte of the secret. All are drawn evenly, zero
	// too: a highest coefficient that is never zero would tell something to one holder less.
	rest := Random(n * (threshold - 1))
	defer rest.Destroy()
	shares := make([]Share, total)
	for i := range shares {
		x := byte(i + 1)
		y := make([]byte, n)
		for d := threshold - 2; d >= 0; d-- {
			mulAdd(y, rest.Expose()[d*n:(d+1)*n], x)
		}
		mulAdd(y, secret.Expose(), x)
		shares[i] = Share{X: x, Y: New(y)}
	}
	return shares, nil
}

// CheckSplit says whether Split takes these numbers.
func CheckSplit(threshold, total int) error {
	switch {
	case threshold < MinThreshold || threshold > MaxThreshold:
		return fault.Newf(api.CodeInvalid, "splitting a secret: the threshold must be %d to %d", MinThreshold, MaxThreshold).WithField("threshold").WithNext("say how many people must come together: 3 of 5 is usual")
	case total < threshold || total > MaxShares:
		return fault.Newf(api.CodeInvalid, "splitting a secret: the number of shares must be between the threshold and %d", MaxShares).WithField("shares").WithNext("make at least as many shares as the threshold asks for: 3 of 5 is usual")
	}
	return nil
}

// mulAdd is one step of Horner's scheme for each byte: y = y*x + c.
func mulAdd(y, c []byte, x byte) {
	for i := range y {
		y[i] = gfMul(y[i], x) ^ c[i]
	}
}

// Combine gives the secret back from at least as many shares as its threshold was; more do no harm. It can't know the
// threshold: from too few, or from shares that don't belong together, it gives bytes that mean nothing, so the caller
// must hold the result against a commitment. Errors: invalid for shares that can't be of one secret. The shares stay the
// caller's.
func Combine(shares []Share) (*Bytes, error) {
	if len(shares) < MinThreshold {
		return nil, fault.Newf(api.CodeInvalid, "combining shares: at least %d are needed", MinThreshold)
	}
	n := shares[0].Y.Len()
	seen := [256]bool{}
	for _, s := range shares {
		switch {
		case s.X == 0 || s.Y.Len() != n || n == 0:
			return nil, fault.New(api.CodeInvalid, "combining shares: one of them is no share, or of another length")
		case seen[s.X]:
			return nil, fault.New(api.CodeInvalid, "combining shares: one of them is there twice")
		}
		seen[s.X] = true
	}
	out := make([]byte, n)
	for i, s := range shares {
		w := weight(shares, i)
		y := s.Y.Expose()
		for j := range out {
			out[j] ^= gfMul(y[j], w)
		}
	}
	return New(out), nil
}

// weight is Lagrange's basis polynomial of share i at zero. Only the public places of the shares go into it.
func weight(shares []Share, i int) byte {
	num, den := byte(1), byte(1)
	for j, s := range shares {
		if j != i {
			num = gfMul(num, s.X)
			den = gfMul(den, s.X^shares[i].X)
		}
	}
	return gfMul(num, gfInv(den))
}

// gfMul multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1, in eight equal rounds: no branch, no table.
func gfMul(a, b byte) (p byte) {
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// gfInv is a^254, the inverse of every a but zero, whose result is zero.
func gfInv(a byte) byte {
	r := byte(1)
	for range 7 { // 254 = 11111110 in binary
		r = gfMul(gfMul(r, r), a)
	}
	return gfMul(r, r)
}
