package account

import "peerlink/identity"

// Revoke makes this account's next revocation list: who it revoked before, and
// who. It is on disk here when this returns; hand it (MarshalText) to those who
// are to know, for their ImportRevocations. Devices among them leave the account's
// device list. It fails on a device that does not hold its account's key.
func (a *Account) Revoke(who ...identity.Subject) (*identity.RevocationList, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Ended() {
		return nil, errClosed
	}
	var number uint64
	for _, l := range a.f.trust.Revocations() {
		if l.Issuer() == a.f.id.AccountID() {
			number = max(number, l.Number())
			who = append(who[:len(who):len(who)], l.Revoked()...)
		}
	}
	l, err := a.f.id.RevocationList(number+1, who...)
	if err != nil {
		return nil, err
	}
	if err := a.f.changeTrust(func(t *identity.Trust) error { return t.AddRevocations(l) }); err != nil {
		return l, err
	}
	return l, a.dropDevices(l.Revoked())
}

// ImportRevocations takes a revocation list that an account or an authority has
// signed, as PEM or as bytes, on disk first. Devices that it names are refused
// from then on, in both directions, and links to them close at once. What the
// list may and may not do is told at identity.Trust.AddRevocations; one that is
// forged, damaged or older than one that is held is refused, and then nothing
// has changed.
func (a *Account) ImportRevocations(list []byte) (*identity.RevocationList, error) {
	l, err := identity.ParseRevocationList(list)
	if err != nil {
		return nil, err
	}
	return l, a.changeTrust(func(t *identity.Trust) error { return t.AddRevocations(l) })
}

// Revocations returns the revocation lists that are held.
func (a *Account) Revocations() []*identity.RevocationList { return a.f.trust.Revocations() }
