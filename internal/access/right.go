package access

// Right is one action on one resource, for work that asks for several.
type Right struct {
	Action   Action
	Resource Resource
}
