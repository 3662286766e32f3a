package access

import "slices"

// Role is a named set of actions.
type Role struct {
	Name, Description string
	Actions           []Action
}

// The names of the roles.
const (
	RoleOwner            = "owner"
	RoleKeyAdministrator = "key-administrator"
	RoleApplication      = "application"
	RoleBackup           = "backup"
	RoleAuditor          = "auditor"
)

// Roles lists every role, with actions in the order of Actions.
func Roles() []Role {
	out := make([]Role, len(roles))
	for i, r := range roles {
		r.Actions = slices.Clone(r.Actions)
		out[i] = r
	}
	return out
}

// RoleByName finds a role by its exact name.
func RoleByName(name string) (Role, bool) {
	for _, r := range roles {
		if r.Name == name {
			r.Actions = slices.Clone(r.Actions)
			return r, true
		}
	}
	return Role{}, false
}

// roles is the table. Who runs keys doesn't use them, who uses keys doesn't run them, and who checks does neither: the
// separation of duties of NIST SP 800-57 part 2 section 4.
var roles = []Role{
	{RoleOwner, "the first administrator: everything, including principals and master keys", every()},
	{RoleKeyAdministrator, "runs keys, datasets, jobs and incidents, without using keys or seeing what they protect; registering a dataset takes key.encrypt and key.decrypt besides", []Action{
		KeyCreate, KeyRead, KeyRotate, KeyState, KeyCompromise, KeyDestroy, KeyImport, KeyRewrap, MasterRead,
		DatasetRead, DatasetWrite, DatasetRun, JobRead, JobControl, PolicyRead, PolicyWrite, KeyReport, IncidentRead, IncidentWrite}},
	{RoleApplication, "a program that seals and opens its data", []Action{
		KeyRead, KeyDataKey, KeyEncrypt, KeyDecrypt, KeyRewrap}},
	{RoleBackup, "makes backups and proves that they open", []Action{BackupCreate, BackupVerify, SystemRead}},
	{RoleAuditor, "reads everything but secrets and data, and signs checkpoints of the audit log", []Action{
		KeyRead, MasterRead, DatasetRead, JobRead, AuditRead, AuditCheckpoint, PrincipalRead, SystemRead, PolicyRead, KeyReport, IncidentRead}},
}

func every() []Action {
	out := make([]Action, len(actions))
	for i, a := range actions {
		out[i] = a.Action
	}
	return out
}

// roleSets holds each role's actions as a set, for Decide.
var roleSets = func() map[string]actionSet {
	m := make(map[string]actionSet, len(roles))
	for _, r := range roles {
		m[r.Name] = setOf(r.Actions)
	}
	return m
}()

// actionSet has bit i set for actions[i]; the closed list is far shorter than 64.
type actionSet uint64

func setOf(as []Action) (s actionSet) {
	for _, a := range as {
		if i, ok := actionIndex[a]; ok {
			s |= 1 << i
		}
	}
	return s
}

func (s actionSet) has(a Action) bool {
	i, ok := actionIndex[a]
	return ok && s&(1<<i) != 0
}
