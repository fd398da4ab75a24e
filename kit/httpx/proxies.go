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

// Proxies are the proxies that are believed where a request comes from. The zero value believes nobody. Gin's own are not made for
// being replaced while requests are served; these are.
type Proxies struct {
	nets atomic.Pointer[[]netip.Prefix]
}

// Prepare reads the networks (CIDR) the proxies are in, and returns what has them believed in the place of those before, from the next
// request on. The error names the network that is none.
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

// TrustProxies makes the router believe what the proxies say of the client's address in X-Forwarded-For and X-Real-IP. A router made by
// NewRouter believes nobody. Call it before handlers are added.
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

// clientKey is where the address of the client is kept in the context of a request that came through a proxy. It is found once, so that
// all that is done with the request is done for the same client.
const clientKey = "mep.client"

// ClientAddr is the address of the client: of the connection, or what a trusted proxy says. It is in its canonical form: without a
// zone, and IPv4 as such.
func ClientAddr(c *gin.Context) netip.Addr {
	if v, ok := c.Get(clientKey); ok {
		return v.(netip.Addr)
	}
	return peerOf(c.Request)
}

// peerOf is the address at the other end of the connection, the unspecified one where there is no telling.
func peerOf(r *http.Request) netip.Addr {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return canonical(addr)
}

func canonical(a netip.Addr) netip.Addr { return a.WithZone("").Unmap() }

// clientBehind is the address of the client of a request that peer sent: peer itself, unless that is one of the proxies. Each proxy adds
// to X-Forwarded-For who it was called by, so that counts which is the last one that is no proxy; what stands before that anybody may
// have made up.
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

// hopAddr reads an address as proxies write it: some add the port.
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
