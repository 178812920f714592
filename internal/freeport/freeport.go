// Package freeport finds ports for servers that tests start, stop and start again
// in the same place.
//
// A port that the kernel chose for a listener is one that it gives to clients,
// too: while the server is down, any connection on this machine may happen to
// begin there, and the server cannot come back. These are ports that the kernel
// gives to nobody by itself.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	lowest   = 20_000 // well-known servers stay below
	attempts = 1000
)

// Take returns a port of 127.0.0.1 that nobody uses, neither for TCP nor for UDP.
// Two callers hardly ever get the same one: it is drawn at random.
func Take() (int, error) {
	highest := firstOfClients()
	if highest <= lowest {
		return 0, fmt.Errorf("the kernel gives clients the ports from %d on: leave some below to servers (net.ipv4.ip_local_port_range)", highest)
	}
	for range attempts {
		port := lowest + rand.N(highest-lowest)
		if free(port) {
			return port, nil
		}
	}
	return 0, errors.New("no port is free")
}

func free(port int) bool {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	udp.Close()
	return true
}

// firstOfClients is the first port that the kernel gives to clients: Linux's own
// where it cannot be found out.
func firstOfClients() int {
	first := 32_768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(text), &first)
	}
	return first
}
