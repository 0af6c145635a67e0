// Package interop has no code: its tests run programs and libraries of others over
// peerlink. README.md says which.
package interop
