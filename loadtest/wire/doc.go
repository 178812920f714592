// Package wire is the cheap end of an HTTP/1.1 conversation: one connection, one
// request at a time, every byte of the request the caller's own.
//
// A load generator that costs more than the server it drives measures itself, so
// nothing here allocates once buffers have grown, and no goroutine stands between
// caller and socket. It speaks what key management servers speak: answers with a
// length, in chunks, or ended by the connection.
//
// An Answer lies in the connection's buffer and is overwritten by the next one.
// Answers carry keys: the buffer is cleared before it is used again.
package wire
