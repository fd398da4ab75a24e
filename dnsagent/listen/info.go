package listen

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// infoSize is room for the control messages of a packet in octets; 40 are needed for the one asked for.
const infoSize = 128

// tune sets what the socket needs besides its address, and asks for the address packets were sent to when there may be more
// than one.
func (p *packets) tune() error {
	// Where the system allows less, less is had.
	_ = p.conn.SetReadBuffer(receiveBuffer)
	addr := unmapped(p.conn.LocalAddr().(*net.UDPAddr).AddrPort()).Addr()
	return control(p.conn, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		// A forged report of a small path MTU must not make answers come in fragments, into which others can be put
		// (RFC 9715). It is a protection more where the kernel knows it.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
		if domain == unix.AF_INET6 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
		}
		if p.info = addr.IsUnspecified(); !p.info {
			return nil
		}
		if domain == unix.AF_INET6 {
			// Where the socket serves IPv4 too, its addresses come and go mapped.
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
}

// source makes of the control messages of a packet the one that sends its answer from the address the packet was sent to. It is
// part of what it is given; nil when the kernel has to choose the address.
func source(info []byte) []byte {
	for len(info) >= unix.SizeofCmsghdr {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(info)
		if err != nil {
			return nil
		}
		message := info[:len(info)-len(rest)]
		switch {
		case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// The index of the interface comes first. Without it the kernel routes the answer like every other packet. The
			// local address follows, which is one of this machine's also when the packet was sent to a broadcast address.
			clear(data[:4])
			return message
		case hdr.Level == unix.IPPROTO_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if netip.AddrFrom16([16]byte(data[:16])).IsMulticast() {
				return nil
			}
			clear(data[16:20])
			return message
		}
		info = rest
	}
	return nil
}
