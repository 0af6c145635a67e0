//go:build !linux && !darwin

package shm

func runHelper(string) error { return errHelper }
