// Package pkcs11 is the master-key provider for an AES-256 key inside a hardware security module (HSM), spoken to by
// PKCS#11: the key is made on the token, wraps there, and never leaves it.
//
//	pkcs11:token=keyturn;object=master?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/keyturn/pin
//
// The URL is RFC 7512's; url.go says which attributes are taken. The PIN comes from the file of pin-source or from the
// environment variable KEYTURN_PKCS11_PIN, never from the URL, which is printed.
//
// # The flavour
//
// PKCS#11 modules are C libraries, so this provider needs cgo: it is in binaries built with `-tags pkcs11` and
// CGO_ENABLED=1 (make build-hsm). In every other binary the scheme is known, its URLs are checked, and opening one fails
// with an error that says so.
//
// # What a module may do
//
// A module is code in this process. Its path is absolute, clean, and named by the configuration or a caller on this
// machine only (package kms); the file and every folder above it must be closed to other users. It is loaded once,
// initialised once (refcounted, for all its keys), finalised with its last key, and never unloaded: modules have threads.
//
// # Wrapping
//
// CKM_AES_GCM with a 128-bit tag over header and binding (blob.go has the form), with keyring.Commit around it, under an initialisation vector that we
// draw: crypto/rand is the same validated generator that draws every other key and nonce of a store, PKCS#11 2.40 leaves
// the vector to the caller, and asking the token first would double the round trips. Chance collides after 2^32 wrappings
// (SP 800-38D, section 8.3); a store makes a few dozen a rotation.
//
// # Sessions
//
// A session serves one call at a time, so each key has a bounded pool of them, opened as they are needed. When the token is
// lost (pulled, restarted, logged out by somebody) the call that finds out connects anew, once, and proves that the key is
// the same one; until that succeeds the key is unavailable, and the next call tries again. Calls into a module can't be
// interrupted: a context is looked at before each, and a module's own timeouts bound it. A wrong PIN is never sent twice,
// and a token's last try never taken: see login.
package pkcs11

// scheme is that of RFC 7512.
const scheme = "pkcs11"

// pinVariable holds the PIN of URLs without pin-source.
const pinVariable = "KEYTURN_PKCS11_PIN"
