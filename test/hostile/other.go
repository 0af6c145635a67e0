//go:build !linux

// Hostile attacks peerchat daemons that it starts itself; it reads Linux's /proc.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "hostile: Linux only: it measures processes by /proc")
	os.Exit(1)
}
