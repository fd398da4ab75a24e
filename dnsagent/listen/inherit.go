package listen

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// Names (FileDescriptorName) of the sockets that systemd may pass to the process.
const (
	SocketDNS = "dns"
	SocketTLS = "dns-tls"
)

// Inherits reports whether systemd has passed sockets with a name, which then stand in for a configured address.
func Inherits(name string) bool { return slices.Contains(handed().names, name) }

// handed returns the sockets that systemd has passed. There is one set per process, as there is of descriptors: those with
// other names stay open for the code that knows them.
var handed = sync.OnceValue(func() *sockets {
	s := &sockets{files: activation.Files(true)}
	for _, f := range s.files {
		s.names = append(s.names, f.Name())
	}
	return s
})

type sockets struct {
	names []string // of all sockets passed
	mu    sync.Mutex
	files []*os.File // those not yet claimed
}

// claim returns the sockets with a name, once.
func (s *sockets) claim(name string) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	var claimed []*os.File
	s.files = slices.DeleteFunc(s.files, func(f *os.File) bool {
		ours := f.Name() == name
		if ours {
			claimed = append(claimed, f)
		}
		return ours
	})
	return claimed
}

// inherit takes over the sockets with a name; it returns false if there are none. Stream sockets serve the given transport.
func (s *Server) inherit(name string, t Transport) (bool, error) {
	files := handed().claim(name)
	defer func() {
		for _, f := range files {
			_ = f.Close() // net has duplicated the descriptor
		}
	}()
	streams := 0
	for _, f := range files {
		if conn, err := net.FilePacketConn(f); err == nil {
			udp, ok := conn.(*net.UDPConn)
			if !ok || t == TLS {
				_ = conn.Close()
				return false, fmt.Errorf("the systemd socket %s at %s is of a kind not known here", name, conn.LocalAddr())
			}
			s.packets = append(s.packets, &packets{conn: udp, readers: s.cfg.Sockets})
			continue
		}
		ln, err := net.FileListener(f)
		if err != nil {
			return false, fmt.Errorf("the systemd socket %s: %w", name, err)
		}
		tcp, ok := ln.(*net.TCPListener)
		if !ok {
			_ = ln.Close()
			return false, fmt.Errorf("the systemd socket %s at %s is of a kind not known here", name, ln.Addr())
		}
		s.addStreams(tcp, t)
		streams++
	}
	if len(files) > 0 && t == TCP && (streams == 0 || streams == len(files)) {
		s.cfg.Log.Warn("a DNS server has to answer over both UDP and TCP, the systemd socket unit names only one of them", "name", name)
	}
	return len(files) > 0, nil
}
