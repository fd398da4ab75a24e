package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

// leastPort is where the ports begin that are chosen from.
const leastPort = 10000

// The kernel gives out ports from here on by itself, if it does not say otherwise.
const defaultEphemeral = 32768

var chosen struct {
	sync.Mutex
	ports map[int]bool
}

// FreeAddr returns an address on loopback that is free for TCP and UDP, for a program that is to listen there later: its port is none that
// the kernel gives to somebody else in the meantime, and this process chooses it once.
func FreeAddr() (string, error) {
	end := defaultEphemeral
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &end)
	}
	if end <= leastPort {
		end = defaultEphemeral
	}
	chosen.Lock()
	defer chosen.Unlock()
	if chosen.ports == nil {
		chosen.ports = make(map[int]bool)
	}
	for range 1000 {
		port := leastPort + rand.IntN(end-leastPort)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if chosen.ports[port] || !free(addr) {
			continue
		}
		chosen.ports[port] = true
		return addr, nil
	}
	return "", errors.New("no port is free")
}

func free(addr string) bool {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer ln.Close()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
