package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"math/bits"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// HashSize is the length of a Hash in bytes.
const HashSize = sha256.Size

// Hash is a node of a Merkle tree: SHA-256 in the shape of RFC 6962 section 2.1.
type Hash [HashSize]byte

// String is the standard base64 form, as checkpoints and answers show it.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// leafStack is how long a line may be for LeafHash to need no memory from the heap; longer ones only cost time.
const leafStack = 1024

// LeafHash is the leaf of one stored line: SHA-256(0x00 || line).
func LeafHash(line []byte) Hash {
	var buf [leafStack]byte
	b := append(buf[:1], line...) // buf[0] is the 0x00 that keeps leaves and nodes apart
	return hashLeaf(b)
}

// hashLeaf is LeafHash of a line that has the 0x00 before it already.
func hashLeaf(leaf []byte) Hash { return sha256.Sum256(leaf) }

// nodeHash is an inner node: SHA-256(0x01 || left || right).
func nodeHash(left, right *Hash) Hash {
	var b [1 + 2*HashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+HashSize:], right[:])
	return sha256.Sum256(b[:])
}

// Tree is a growing Merkle tree of which only the right edge is kept: the roots of the perfect subtrees that its size
// is made of, largest first, which is all that appending and the root need. The zero value is the empty tree. It has no
// lock; it belongs to whoever appends.
type Tree struct {
	size uint64
	edge [64]Hash // edge[:bits.OnesCount64(size)] are in use
}

// TreeFrom makes a tree of a known size from its right edge, as AppendEdge wrote it. Whether the edge is the true one
// shows only when Root is compared with a root that is trusted.
func TreeFrom(size uint64, edge []byte) (*Tree, error) {
	t := &Tree{size: size}
	n := bits.OnesCount64(size)
	if len(edge) != n*HashSize {
		return nil, fault.Newf(api.CodeIntegrity, "reading the edge of an audit tree of %d events: %d bytes instead of %d", size, len(edge), n*HashSize)
	}
	for i := range n {
		copy(t.edge[i][:], edge[i*HashSize:])
	}
	return t, nil
}

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Append adds a leaf at the right: on average one inner node is hashed.
func (t *Tree) Append(leaf Hash) { t.push(leaf, -1) }

// push is Append that also tells the root of the perfect subtree of 1<<level leaves which the leaf completed, if it did.
func (t *Tree) push(leaf Hash, level int) (subtree Hash, ok bool) {
	n, height := bits.OnesCount64(t.size), 0
	for s := t.size; ; s >>= 1 {
		if height == level {
			subtree, ok = leaf, true
		}
		if s&1 == 0 {
			break
		}
		n--
		leaf = nodeHash(&t.edge[n], &leaf)
		height++
	}
	t.edge[n] = leaf
	t.size++
	return subtree, ok
}

// Root is the head of the tree; that of the empty tree is SHA-256 of nothing (RFC 6962 section 2.1).
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	return t.fold(t.size)
}

// fold is the root over the rightmost leaves, as many as low says; low is a sum of the smallest powers of two that
// the size is made of, and not 0.
func (t *Tree) fold(low uint64) Hash {
	last := bits.OnesCount64(t.size)
	root := t.edge[last-1]
	for i := last - 2; i >= last-bits.OnesCount64(low); i-- {
		root = nodeHash(&t.edge[i], &root)
	}
	return root
}

// foldInto hangs a subtree to the right of everything and makes root the root of all.
func (t *Tree) foldInto(root *Hash) {
	for i := bits.OnesCount64(t.size) - 1; i >= 0; i-- {
		*root = nodeHash(&t.edge[i], root)
	}
}

// AppendEdge appends the right edge to dst, for TreeFrom.
func (t *Tree) AppendEdge(dst []byte) []byte {
	for i := range bits.OnesCount64(t.size) {
		dst = append(dst, t.edge[i][:]...)
	}
	return dst
}
