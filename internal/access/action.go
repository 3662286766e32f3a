package access

// Action is one thing that somebody may be allowed to do. The list is closed: an action that isn't in Actions is denied
// to everyone.
type Action string

// The actions. What each means, and what it does not imply, is in the table below.
const (
	KeyCreate             Action = "key.create"
	KeyRead               Action = "key.read"
	KeyRotate             Action = "key.rotate"
	KeyState              Action = "key.state"
	KeyCompromise         Action = "key.compromise"
	KeyDestroy            Action = "key.destroy"
	KeyImport             Action = "key.import"
	KeyExport             Action = "key.export"
	KeyDerive             Action = "key.derive"
	KeyDataKey            Action = "key.datakey"
	KeyEncrypt            Action = "key.encrypt"
	KeyDecrypt            Action = "key.decrypt"
	KeyDecryptCompromised Action = "key.decrypt-compromised"
	KeyRewrap             Action = "key.rewrap"
	MasterRead            Action = "master.read"
	MasterChange          Action = "master.change"
	MasterEscrow          Action = "master.escrow"
	DatasetRead           Action = "dataset.read"
	DatasetWrite          Action = "dataset.write"
	DatasetRun            Action = "dataset.run"
	DatasetDecrypt        Action = "dataset.decrypt"
	JobRead               Action = "job.read"
	JobControl            Action = "job.control"
	AuditRead             Action = "audit.read"
	AuditCheckpoint       Action = "audit.checkpoint"
	PrincipalRead         Action = "principal.read"
	PrincipalWrite        Action = "principal.write"
	BackupCreate          Action = "backup.create"
	BackupVerify          Action = "backup.verify"
	SystemRead            Action = "system.read"
	PolicyRead            Action = "policy.read"
	PolicyWrite           Action = "policy.write"
	KeyForceDestroy       Action = "key.force-destroy"
	KeyReport             Action = "key.report"
	IncidentRead          Action = "incident.read"
	IncidentWrite         Action = "incident.write"
)

// ActionInfo explains an action to the person who grants it.
type ActionInfo struct {
	Action       Action
	Describes    string // what it allows
	DoesNotImply string // what one might think comes with it, and doesn't
}

// Actions is the closed list, in the order in which documentation prints it.
func Actions() []ActionInfo { return append([]ActionInfo(nil), actions...) }

// Known says whether the action is in the list.
func (a Action) Known() bool {
	_, ok := actionIndex[a]
	return ok
}

var actions = []ActionInfo{
	{KeyCreate, "make a key with its first version", "using the key, or importing material"},
	{KeyRead, "see a key's metadata: versions, states, counters; look into a ciphertext's header", "opening anything, or seeing material"},
	{KeyRotate, "make a new active version", "changing the state of other versions"},
	{KeyState, "suspend, resume and disable versions", "marking one compromised, or destroying it"},
	{KeyCompromise, "mark a version compromised", "opening what it sealed"},
	{KeyDestroy, "schedule a version's destruction, and take that back", "forcing it while something depends on the version"},
	{KeyImport, "bring material from elsewhere, as a new key", "as the next version of a key that exists, which needs key.encrypt and key.decrypt too"},
	{KeyExport, "take a version's material out in clear", "importing material"},
	{KeyDerive, "derive keys from a version; they leave in clear", "opening ciphertexts"},
	{KeyDataKey, "get fresh data keys, in clear and sealed", "opening data keys sealed earlier; that is key.decrypt"},
	{KeyEncrypt, "seal data under a key", "opening it again"},
	{KeyDecrypt, "open what a key sealed", "opening what stands under a compromised version"},
	{KeyDecryptCompromised, "open what a compromised version sealed", "key.decrypt, which is needed too"},
	{KeyRewrap, "move ciphertexts to the current version inside keyturn", "seeing the plaintext, or changing the context"},
	{MasterRead, "see which master keys are configured and whether they open", "changing them"},
	{MasterChange, "add, remove and rotate master keys and key-encryption keys", "using keys, or making escrow shares"},
	{MasterEscrow, "make the escrow shares, enough of which open the whole store, and see them this once", "seeing the shares again, which nobody can"},
	{DatasetRead, "see datasets and their census", "running anything on them"},
	{DatasetWrite, "register and remove datasets, with their connection passwords", "running anything on them; registering needs key.encrypt and key.decrypt on the columns' keys too"},
	{DatasetRun, "encrypt, re-encrypt and verify datasets", "turning them back into plaintext"},
	{DatasetDecrypt, "turn a dataset back into plaintext", "key.decrypt on its columns' keys, which is needed too"},
	{JobRead, "see jobs and what failed in them", "stopping them"},
	{JobControl, "pause, resume, cancel and retry jobs", "the right to the work itself, which resuming and retrying need too, and incident.write, which stopping what answers an incident needs"},
	{AuditRead, "read, query, verify and export the audit log", "signing a checkpoint"},
	{AuditCheckpoint, "have a checkpoint of the audit log signed", "changing or deleting events, which nobody can"},
	{PrincipalRead, "see principals, roles and scopes", "seeing tokens, which nobody can"},
	{PrincipalWrite, "make and disable principals, and give them tokens", "giving rights that one doesn't have"},
	{BackupCreate, "make sealed backups", "opening or restoring them"},
	{BackupVerify, "prove that backups open", "restoring them"},
	{SystemRead, "see status and the doctor's checks", "changing anything"},
	{PolicyRead, "see the rotation policies and what holds for a key", "seeing the keys, which is key.read"},
	{PolicyWrite, "set and take away rotation policies about the keys in one's scope; those that name no key need all keys in it", "rotating keys by hand"},
	{KeyForceDestroy, "be one of the two people who have a version destroyed although something depends on it", "doing so alone; key.destroy is needed too"},
	{KeyReport, "have signed reports made of a key", "reading the audit log itself"},
	{IncidentRead, "see incidents: what they are about, what was done, what is left", "seeing who could use a key and who did, which need principal.read and audit.read too"},
	{IncidentWrite, "open incidents, add notes to them, close them", "an emergency rotation, which needs key.rotate and key.compromise on every key too"},
}

// actionIndex finds an action's place in the table, which is also its bit in a set.
var actionIndex = func() map[Action]int {
	m := make(map[Action]int, len(actions))
	for i, a := range actions {
		m[a.Action] = i
	}
	return m
}()
