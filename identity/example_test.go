package identity_test

import (
	"fmt"
	"log"
	"time"

	"peerlink/identity"
)

func Example() {
	laptop, err := identity.Generate("alice's laptop")
	if err != nil {
		log.Fatal(err)
	}
	phone, err := laptop.IssueDevice("alice's phone")
	if err != nil {
		log.Fatal(err)
	}

	// What somebody else sees of the phone: a chain, which says whose it is,
	// and a signature, which proves that its sender holds the key.
	peer, err := identity.VerifyChain(phone.Peer().Chain(), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	sig, err := phone.Sign("example", []byte("it is me"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(peer.Name, "| same account:", peer.Account == laptop.AccountID())
	fmt.Println("signature:", peer.Verify("example", []byte("it is me"), sig))

	var trust identity.Trust
	if err := trust.Set(peer.Device, identity.Banned); err != nil {
		log.Fatal(err)
	}
	fmt.Println("laptop let in:", trust.Check(laptop.Peer()) == nil, "| phone let in:", trust.Check(peer) == nil)
	// Output:
	// alice's phone | same account: true
	// signature: <nil>
	// laptop let in: true | phone let in: false
}
