// Package loadtest puts a load like that of HDFS on Hadoop key management servers,
// Java's included, and measures what the users of such a load would feel.
//
// The load is open-loop: arrivals are due at fixed times, and latency counts from
// there (see package schedule), so a server that stalls cannot hide it by being
// asked less. A closed loop is there for those who look for the highest rate.
//
// The generator watches itself. What it sends late by its own fault is measured,
// and figures that are its own rather than the server's are said to be.
//
// Run does one load. It leaves nothing behind that it was not asked for: keys are
// made on request only, rolled only when they are its own or on request, and
// delegation tokens it got are cancelled. Keys that servers decrypt for it stay in
// the buffers of connections, which are cleared before they are used again.
package loadtest
