//go:build unix

package main

import (
	"errors"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"

	"peerlink/cmd/peerchat/internal/control"
)

// detachedAttr makes a process a session of its own: the terminal's end is not
// its.
func detachedAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// reloadSignals delivers SIGHUP.
func reloadSignals() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// What is told to systemd, where it listens.
const (
	notifyReady     = systemd.SdNotifyReady
	notifyReloading = systemd.SdNotifyReloading
	notifyStopping  = systemd.SdNotifyStopping
)

func notify(state string) { _, _ = systemd.SdNotify(false, state) } // without systemd nobody listens

// activated returns the control socket that systemd has opened; nil without one.
func activated(folder string) (net.Listener, error) {
	ls, err := activation.Listeners()
	if err != nil || len(ls) == 0 {
		return nil, err
	}
	if len(ls) > 1 {
		return nil, errors.New("systemd passes more than one socket: want the control socket alone")
	}
	return control.Adopt(folder, ls[0])
}
