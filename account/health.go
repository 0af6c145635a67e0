package account

import (
	"fmt"
	"reflect"

	"peerlink/dht"
)

// DHT returns how the account's node fares; false where it has none, or has not
// been started. It does not block.
func (a *Account) DHT() (dht.Health, bool) {
	a.mu.Lock()
	node := a.node
	a.mu.Unlock()
	if node == nil {
		return dht.Health{}, false
	}
	return node.Health(), true
}

// peersKey is the setting that a running account can change.
const peersKey = "peers"

// Reload reads config.json anew. Addresses of peers hold at once (those that
// are gone from the file are forgotten at the next start); of the other
// settings that have changed restart has the names: they hold at the next start.
// After an error, which names the file and the line, all is as it was.
func (a *Account) Reload() (applied, restart []string, err error) {
	if a.f.dir == "" {
		return nil, nil, errNoFolder
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := a.f.read(configFile, 0o022, "restore it from a copy, or write {} into it for the defaults")
	if err != nil {
		return nil, nil, fmt.Errorf("reload the settings: %w", err)
	}
	fresh, err := parseConfig(b)
	if err != nil {
		return nil, nil, fmt.Errorf("reload the settings: %s: %w", a.f.disk.path(configFile), err)
	}
	for _, key := range changed(a.f.cfg, fresh) {
		if key != peersKey {
			restart = append(restart, key)
			continue
		}
		for peer, addrs := range fresh.Peers {
			if err := a.dialer.Learn(peer, addrs...); err != nil {
				return nil, nil, fmt.Errorf("reload the settings: peers: %w", err)
			}
		}
		a.f.cfg.Peers = fresh.Peers
		applied = append(applied, key)
	}
	return applied, restart, nil
}

// changed returns the keys under which two settings differ.
func changed(a, b Options) []string {
	var keys []string
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for key, f := range settings() {
		if !reflect.DeepEqual(x.FieldByIndex(f.Index).Interface(), y.FieldByIndex(f.Index).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}
