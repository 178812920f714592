package proxy

import "unsafe"

// view lends b's bytes as a string for a look-up, without copying. The string
// must not be kept: b's buffer is reused for the next request.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
