// Package stdlog silences the standard library's logger until a daemon has
// opened a log of its own (slog.SetDefault takes the logger over). Import it for
// its effect.
//
// VictoriaMetrics/metrics looks for pressure stall information while packages
// are initialized and, on kernels and in containers without it, logs that there
// is none: on every `--version`, in a form that is not ours. This package comes
// before it because packages are initialized in the order of their import paths
// once what they import is, and this one imports nothing that has to wait, while
// that one waits for github.com/valyala/… (Go specification, "Program
// initialization").
package stdlog

import (
	"io"
	"log"
)

func init() { log.SetOutput(io.Discard) }
