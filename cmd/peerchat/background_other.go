//go:build !unix

package main

import (
	"net"
	"os"
	"syscall"
)

const notifyReady, notifyReloading, notifyStopping = "", "", ""

func detachedAttr() *syscall.SysProcAttr { return nil }

func reloadSignals() (<-chan os.Signal, func()) { return nil, func() {} }

func notify(string) {}

func activated(string) (net.Listener, error) { return nil, nil }
