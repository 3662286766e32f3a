package audit

import (
	"cmp"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/fault"
)

// AllProver computes many inclusion proofs of one shard from its leaves, given once and in order. Proofs share most of
// their steps, so a leaf costs as many hashes as subtrees of steps hold it (the height of the tree at most), however many
// proofs are wanted.
type AllProver struct {
	next  uint64
	paths []*Prover // one for each wanted event; its spans name the steps
	steps []*span   // each different step once, by where it begins, the longest first
	roots map[[2]uint64]*span
	begun int     // steps[:begun] have begun
	open  []*span // those of them that haven't ended
}

// ProveAll prepares the proofs that the events at indexes are in the tree of size events.
func ProveAll(indexes []uint64, size uint64) (*AllProver, error) {
	a := &AllProver{roots: map[[2]uint64]*span{}}
	for _, index := range indexes {
		p, err := ProveInclusion(index, size)
		if err != nil {
			return nil, err
		}
		a.paths = append(a.paths, p)
		for _, s := range p.spans {
			at := [2]uint64{s.from, s.to}
			if a.roots[at] == nil {
				a.roots[at] = &span{from: s.from, to: s.to}
				a.steps = append(a.steps, a.roots[at])
			}
		}
	}
	slices.SortFunc(a.steps, func(x, y *span) int { return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(y.to, x.to)) })
	return a, nil
}

// Leaf takes the next leaf, from 0 on.
func (a *AllProver) Leaf(h Hash) {
	for a.begun < len(a.steps) && a.steps[a.begun].from == a.next {
		a.open = append(a.open, a.steps[a.begun])
		a.begun++
	}
	a.next++
	kept := a.open[:0]
	for _, s := range a.open {
		s.tree.Append(h)
		if s.to > a.next {
			kept = append(kept, s)
		}
	}
	a.open = kept
}

// Proof returns the steps for the i'th of the indexes, from the leaf's side to the root's. Fault integrity when leaves are
// missing.
func (a *AllProver) Proof(i int) ([]Hash, error) {
	out := make([]Hash, len(a.paths[i].spans))
	for n, s := range a.paths[i].spans {
		step := a.roots[[2]uint64{s.from, s.to}]
		if step.tree.size != s.to-s.from {
			return nil, fault.New(api.CodeIntegrity, "proving an audit event: the log is shorter than its checkpoint")
		}
		out[n] = step.tree.Root()
	}
	return out, nil
}

// PlaceOf is where an exported line says that it stands.
func PlaceOf(line []byte) (shard int, index uint64, ok bool) {
	_, shard, index, ok = splitPlace(line)
	return shard, index, ok
}
