// Package identity says who is who: device and account ids, the keys behind
// them, the certificate chain that ties a device to its account, and the trust
// store that allows and bans.
//
// A device is one key pair. Its [DeviceID] is the SHA-256 of its public key
// (the DER SubjectPublicKeyInfo), so whoever holds the key is the device and
// nothing else has to be believed. An account is the key that signs its
// devices' certificates; above it may stand one certificate authority.
//
//	me, err := identity.Generate("alice's laptop")
//	...
//	fmt.Println(me.DeviceID())                       // 64 hex digits
//	peer, err := identity.VerifyChain(der, time.Now()) // what a handshake presented
//	if err == nil {
//		err = trust.Check(peer)
//	}
//
// # Limits
//
// A stranger's chain never goes through general X.509 path building. Sizes,
// chain length, key types and the number of names are capped first; then
// exactly the signatures defined here are checked: device ← account, and
// account ← itself or account ← authority ← itself. Extended key usages are
// not read: a device certificate allows its holder to be that device, in
// either role of a handshake, and nothing else. Name constraints, policies and
// revocation pointers have no meaning here; an extension marked critical that
// crypto/x509 does not know makes the chain invalid.
//
// The package opens no network connection and touches no file.
package identity
