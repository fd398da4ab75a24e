package listen

import (
	"crypto/tls"
	"sync/atomic"
)

// dot returns a copy of config for DNS over TLS, with the ALPN protocol "dot" (RFC 7858, IANA). A client need not offer one.
func dot(config *tls.Config) *tls.Config {
	named := func(c *tls.Config) *tls.Config {
		c = c.Clone()
		c.NextProtos = []string{"dot"}
		return c
	}
	choose := config.GetConfigForClient
	config = named(config)
	if choose == nil {
		return config
	}
	type made struct{ from, config *tls.Config }
	var last atomic.Pointer[made]
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		from, err := choose(hello)
		if err != nil || from == nil {
			return nil, err
		}
		if m := last.Load(); m != nil && m.from == from {
			return m.config, nil
		}
		m := &made{from: from, config: named(from)}
		last.Store(m)
		return m.config, nil
	}
	return config
}
