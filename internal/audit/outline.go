package audit

// outlineMax is how many subtrees an outline lists at most before it takes subtrees twice as large: 4096 hashes are
// 128 KiB, and an export of up to 4096 events is outlined event by event.
const outlineMax = 4096

// outline lists the roots of the perfect subtrees of one level of a growing tree, and so says where a change is when a
// root doesn't match. Written into an export it needs no signature: folded together it must give the signed root, or
// it is worth nothing.
type outline struct {
	tree   Tree
	level  int      // each hash covers 1<<level leaves
	hashes []Hash   // of the complete subtrees, from the left
	lines  []uint64 // the line of the first leaf of each, and of the first leaf behind them
}

// append adds a leaf that stands in a line to the tree and keeps the outline in step.
func (o *outline) append(leaf Hash, line uint64) {
	if o.tree.size&(1<<o.level-1) == 0 {
		o.lines = append(o.lines, line)
	}
	subtree, ok := o.tree.push(leaf, o.level)
	if !ok {
		return
	}
	o.hashes = append(o.hashes, subtree)
	if len(o.hashes) > outlineMax {
		o.coarsen()
	}
}

// coarsen goes up one level. It is called right after a subtree was added, when their number is odd; the last one then
// waits in the tree's edge for its neighbour.
func (o *outline) coarsen() {
	n := len(o.hashes) / 2
	for i := range n {
		o.hashes[i] = nodeHash(&o.hashes[2*i], &o.hashes[2*i+1])
		o.lines[i] = o.lines[2*i]
	}
	o.lines[n] = o.lines[2*n]
	o.hashes, o.lines = o.hashes[:n], o.lines[:n+1]
	o.level++
}

// list is the outline as it is exported: the complete subtrees, and the root of the leaves behind them if there are any.
func (o *outline) list() []Hash {
	out := append([]Hash(nil), o.hashes...)
	if part := o.tree.size & (1<<o.level - 1); part != 0 {
		out = append(out, o.tree.fold(part))
	}
	return out
}

// foldOutline is the root of a tree of size leaves whose list at a level is given; false when the list has another
// length than such a tree's.
func foldOutline(size uint64, level int, list []Hash) (root Hash, ok bool) {
	if level < 0 || level > 62 || size == 0 {
		return root, false
	}
	full, part := size>>level, size&(1<<level-1)
	if n := uint64(len(list)); n != full && part == 0 || n != full+1 && part != 0 {
		return root, false
	}
	var upper Tree
	for _, h := range list[:full] {
		upper.Append(h)
	}
	if part == 0 {
		return upper.Root(), true
	}
	root = list[full]
	upper.foldInto(&root)
	return root, true
}

// compare finds the first subtree in which the list of another tree differs from this one, as a range of leaves
// [from, to) with the line of its first leaf here. Lists of different levels are compared at the coarser one.
func (o *outline) compare(size uint64, level int, list []Hash) (from, to, line uint64) {
	mine, lines, at := o.list(), o.lines, o.level
	for at < level {
		mine, at = halve(mine, o.tree.size, at), at+1
		lines = everySecond(lines)
	}
	for level < at {
		list, level = halve(list, size, level), level+1
	}
	i := 0
	for i < len(mine) && i < len(list) && mine[i] == list[i] {
		i++
	}
	from, to = uint64(i)<<at, min(uint64(i+1)<<at, max(o.tree.size, size))
	if i < len(lines) {
		line = lines[i]
	}
	return from, to, line
}

// halve takes a list of a tree of size leaves from one level to the next. An odd last subtree is joined with what is
// behind it.
func halve(list []Hash, size uint64, level int) []Hash {
	full := int(size >> (level + 1)) // complete subtrees afterwards
	out := make([]Hash, 0, full+1)
	for i := range full {
		out = append(out, nodeHash(&list[2*i], &list[2*i+1]))
	}
	switch left := list[2*full:]; len(left) {
	case 2:
		out = append(out, nodeHash(&left[0], &left[1]))
	case 1:
		out = append(out, left[0])
	}
	return out
}

func everySecond(lines []uint64) []uint64 {
	var out []uint64
	for i := 0; i < len(lines); i += 2 {
		out = append(out, lines[i])
	}
	return out
}
