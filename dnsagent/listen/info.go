package listen

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// infoSize is the size of the buffer for control messages of a packet in octets; the requested one takes 40.
const infoSize = 128

// tune sets the options of the socket, and requests the destination address of packets if there may be more than one.
func (p *packets) tune() error {
	// The system may grant less.
	_ = p.conn.SetReadBuffer(receiveBuffer)
	addr := unmapped(p.conn.LocalAddr().(*net.UDPAddr).AddrPort()).Addr()
	return control(p.conn, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		// A forged report of a small path MTU must not cause responses to be fragmented: fragments can be replaced (RFC 9715).
		// This is an additional protection where the kernel supports it.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
		if domain == unix.AF_INET6 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
		}
		if p.info = addr.IsUnspecified(); !p.info {
			return nil
		}
		if domain == unix.AF_INET6 {
			// If the socket also serves IPv4, the addresses are IPv4-mapped in both directions.
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
}

// source picks from info, the control messages of a packet, the one that makes the response leave from the address the packet
// was sent to. The result is part of info; it is nil if the kernel has to choose the address.
func source(info []byte) []byte {
	for len(info) >= unix.SizeofCmsghdr {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(info)
		if err != nil {
			return nil
		}
		message := info[:len(info)-len(rest)]
		switch {
		case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// The interface index comes first. Without it the kernel routes the response like any other packet. The local
			// address follows, which belongs to this machine even if the packet was sent to a broadcast address.
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
