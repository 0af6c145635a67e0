package peerlink

import (
	"peerlink/identity"
	"peerlink/internal/quota"
)

// LimitAsked sets, before there are links, how many requests of one stranger and of
// all are at work at once.
func LimitAsked(m *ConnectionManager, each, all int) {
	m.asked = quota.New[identity.DeviceID](each, all)
}
