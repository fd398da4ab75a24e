package httpx

import "net"

// ListenerURL returns the base URL of a listener on the address; with tls it is an https URL. An unspecified address is shown as the
// loopback address.
func ListenerURL(addr *net.TCPAddr, tls bool) string {
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	shown := *addr
	if shown.IP.IsUnspecified() {
		shown.IP = net.IPv4(127, 0, 0, 1)
	}
	return scheme + shown.String()
}
