package limit

import "net/netip"

// sourceBits is the length of the IPv6 prefix that counts as one client.
const sourceBits = 64

// Source returns the key for a client address: an IPv4 address as it is, also one mapped into IPv6; for an IPv6
// address its /64, without a zone, because a client with one address there has all of them (RFC 7934). The zero Addr has a key too.
func Source(addr netip.Addr) string {
	addr = addr.Unmap()
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(sourceBits)
	if err != nil || !prefix.IsValid() {
		return "unknown"
	}
	return prefix.String()
}
