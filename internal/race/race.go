//go:build race

// Package race tells tests whether the race detector is on: it makes
// sync.Pool forget at random, so allocation counts mean nothing then.
package race

// Enabled reports whether the race detector is on.
const Enabled = true
