//go:build !cgo || osusergo

package groups

import "time"

// newSystem returns the mapping of the operating system. Without the C library
// Go reads /etc/passwd and /etc/group alone, so NSS is asked by a command.
func newSystem(timeout time.Duration) (Mapping, error) { return newCommand(timeout) }
