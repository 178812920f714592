package freeport

import (
	"fmt"
	"net"
	"testing"
)

func TestPortsAreFreeAndNoClientsOwn(t *testing.T) {
	first := firstOfClients()
	for range 20 {
		port, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		if port < lowest || port >= first {
			t.Errorf("%d: clients have those from %d on", port, first)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if free(port) {
			t.Errorf("%d is free though somebody listens", port)
		}
		l.Close()
	}
}
