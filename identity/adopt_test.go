package identity

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// A device that had an account of its own comes into another one: its id stays.
func TestASignedDeviceKeepsItsKeys(t *testing.T) {
	for name, account := range map[string]*Identity{"Ed25519": generate(t, "alice"), "P-256": generateP256(t, "alice")} {
		t.Run(name, func(t *testing.T) {
			fresh := generate(t, "alice's phone")
			chain, err := account.SignDevice(fresh.Peer(), "phone")
			if err != nil {
				t.Fatal(err)
			}
			me, err := fresh.Adopt(chain)
			if err != nil {
				t.Fatal(err)
			}
			if me.DeviceID() != fresh.DeviceID() || me.AccountID() != account.AccountID() || me.Name() != "phone" || me.HoldsAccount() {
				t.Errorf("%v of account %v", me.Peer(), me.AccountID())
			}
			again, err := Decode(encode(t, me))
			if err != nil || again.AccountID() != account.AccountID() || again.HoldsAccount() {
				t.Errorf("read again: %v", err)
			}
			sig, err := again.Sign("record", []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			p, err := VerifyChain(chain, time.Now())
			if err != nil || p.Verify("record", []byte("x"), sig) != nil || !slices.Equal(again.SealingKey(), fresh.SealingKey()) {
				t.Errorf("its keys are others: %v", err)
			}
		})
	}
}

func TestWhatIsSignedIsAProvenKeyOfAnotherDevice(t *testing.T) {
	alice, phone := generate(t, "alice"), generate(t, "phone")
	if _, err := deviceOnly(t).SignDevice(phone.Peer(), "phone"); err == nil {
		t.Error("a device without its account's key signed another")
	}
	if _, err := alice.SignDevice(Peer{Device: phone.DeviceID(), Name: "phone"}, "phone"); err == nil {
		t.Error("a device without a key was signed")
	}
	if _, err := alice.SignDevice(alice.Peer(), "alice"); err == nil {
		t.Error("it signed itself again")
	}
	if _, err := alice.SignDevice(phone.Peer(), "\x1b[2J"); err == nil {
		t.Error("a hostile name was signed")
	}
}

// fault: D2
func TestADeviceAdoptsItsOwnChainOnly(t *testing.T) {
	alice, phone, other := generate(t, "alice"), generate(t, "phone"), generate(t, "other")
	chain, err := alice.SignDevice(other.Peer(), "other")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := alice.SignDevice(phone.Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	forged := [][]byte{mine[0], other.Peer().Chain()[1]}
	swapped := [][]byte{mine[1], mine[0]}
	for what, c := range map[string][][]byte{"another's": chain, "none": nil, "of no account": mine[:1], "not signed by the account": forged, "the account first": swapped} {
		if me, err := phone.Adopt(c); !errors.Is(err, ErrChain) {
			t.Errorf("%s: %v, %v", what, me, err)
		}
	}
}
