package audit

// ResourceMask is a resource's bits in Segment.Mask: a bloom filter of 63 bits with two bits a resource. The 64th bit
// stays clear because SQL has no unsigned integers. A segment may hold events of the resource only if it has all these
// bits; with ten different resources in a segment one in thirteen others is asked for in vain.
//
// The function is part of what is stored: changing it would make old segments invisible to queries.
func ResourceMask(resource string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a, 64 bits
	for i := range len(resource) {
		h ^= uint64(resource[i])
		h *= 1099511628211
	}
	h ^= h >> 32 // FNV's low bits alone mix poorly
	return 1<<(h%63) | 1<<((h/63)%63)
}
