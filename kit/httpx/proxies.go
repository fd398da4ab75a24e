package httpx

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

// Proxies are the proxies trusted to tell a client's address. The zero value trusts none. Unlike gin's own, they can be replaced while
// requests are served.
type Proxies struct {
	nets atomic.Pointer[[]netip.Prefix]
}

// Prepare parses the networks (CIDR) of the proxies and returns a function that puts them in the place of those before, from the next
// request on. The error names a network that is invalid.
func (p *Proxies) Prepare(networks []string) (apply func(), err error) {
	nets := make([]netip.Prefix, len(networks))
	for i, n := range networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, fmt.Errorf("proxies: %q is not a network such as 10.0.0.0/8", n)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96) // addresses are compared unmapped
		}
		nets[i] = p
	}
	return func() { p.nets.Store(&nets) }, nil
}

// TrustProxies makes the router take the client's address from the X-Forwarded-For and X-Real-IP of the proxies. A router made by
// NewRouter trusts none. Call it before handlers are added.
func TrustProxies(e *gin.Engine, p *Proxies) {
	e.Use(func(c *gin.Context) {
		nets := p.nets.Load()
		if nets == nil || len(*nets) == 0 {
			return
		}
		peer := peerOf(c.Request)
		if client := clientBehind(c.Request.Header, peer, *nets); client != peer {
			c.Set(clientKey, client)
		}
	})
}

// clientKey is the context key of the client's address, for a request that came through a proxy. It is determined once, so that the
// whole request is handled for the same client.
const clientKey = "mep.client"

// ClientAddr returns the address of the client: that of the connection, or what a trusted proxy says. It is in canonical form: without a
// zone, and IPv4 as such.
func ClientAddr(c *gin.Context) netip.Addr {
	if v, ok := c.Get(clientKey); ok {
		return v.(netip.Addr)
	}
	return peerOf(c.Request)
}

// peerOf returns the remote address of the connection; the unspecified address if it is unknown.
func peerOf(r *http.Request) netip.Addr {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return canonical(addr)
}

func canonical(a netip.Addr) netip.Addr { return a.WithZone("").Unmap() }

// clientBehind returns the client address of a request sent by peer: peer itself, unless that is one of the proxies. Each proxy appends
// the address of its caller to X-Forwarded-For, so the last one that is no proxy counts; anybody may have made up those before it.
func clientBehind(h http.Header, peer netip.Addr, proxies []netip.Prefix) netip.Addr {
	if !within(peer, proxies) {
		return peer
	}
	client, said := peer, false
	for _, hop := range slices.Backward(strings.Split(strings.Join(h["X-Forwarded-For"], ","), ",")) {
		a, ok := hopAddr(hop)
		if !ok {
			break
		}
		if client, said = a, true; !within(a, proxies) {
			break
		}
	}
	if a, ok := hopAddr(h.Get("X-Real-Ip")); ok && !said {
		return a
	}
	return client
}

// hopAddr parses an address as proxies write it: some add the port.
func hopAddr(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		return canonical(ap.Addr()), err == nil
	}
	return canonical(a), true
}

func within(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}
