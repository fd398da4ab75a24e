package forward

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// certificate returns a certificate for a name or an address, with the CAs that vouch for it.
func certificate(t *testing.T, host string, until time.Time) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	cas := x509.NewCertPool()
	cas.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS10}, cas
}

var tomorrow = time.Now().Add(24 * time.Hour)

func TestTheCertificateMustBeRight(t *testing.T) {
	tests := map[string]struct {
		host, name string
		until      time.Time
		stranger   bool
		maxVersion uint16
		ok         bool
	}{
		"for the name":                  {host: "dns.example", name: "dns.example", ok: true},
		"for the address":               {host: "127.0.0.1", ok: true},
		"for another name":              {host: "evil.example", name: "dns.example"},
		"for the address, not the name": {host: "127.0.0.1", name: "dns.example"},
		"for another address":           {host: "192.0.2.1"},
		"for a name, but none is known": {host: "dns.example"},
		"from a stranger":               {host: "dns.example", name: "dns.example", stranger: true},
		"expired":                       {host: "dns.example", name: "dns.example", until: time.Now().Add(-time.Minute)},
		"over too old a version":        {host: "dns.example", name: "dns.example", maxVersion: tls.VersionTLS11},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.until.IsZero() {
				tt.until = tomorrow
			}
			server, cas := certificate(t, tt.host, tt.until)
			server.MaxVersion = tt.maxVersion
			if tt.stranger {
				_, cas = certificate(t, tt.host, tt.until)
			}
			up := newFake(t, server, address(t, "192.0.2.1", "60"))
			s := newSubject(t, Config{Zones: rootZone(Upstream{Addr: up.addr, TLS: true, ServerName: tt.name, CAs: cas}), RandomCase: true})
			m, err := s.ask(t, "a.example")
			require.Zero(t, up.overUDP.Load(), "nothing goes out in the clear")
			if !tt.ok {
				require.ErrorIs(t, err, ErrNetwork)
				require.Zero(t, up.asked())
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
		})
	}
}

// secureSubject returns a forwarder with one TLS upstream, whose answers may not be kept.
func secureSubject(t *testing.T) (*subject, *fake) {
	server, cas := certificate(t, "127.0.0.1", tomorrow)
	up := newFake(t, server, address(t, "192.0.2.1", "0"))
	return newSubject(t, Config{Zones: rootZone(Upstream{Addr: up.addr, TLS: true, CAs: cas})}), up
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	s, up := secureSubject(t)
	for range 20 {
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
	}
	require.Equal(t, int64(1), up.accepted.Load())
}

func TestAConnectionThatWasClosedMeanwhileIsReplaced(t *testing.T) {
	s, up := secureSubject(t)
	for n := range int64(5) {
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
		require.Equal(t, n+1, up.accepted.Load())
		up.hangUp()
	}
	require.Zero(t, s.Upstreams()[0].Unanswered)
}

func TestAConnectionOnWhichSomethingIsLeftOutIsNotUsedAgain(t *testing.T) {
	s, up := secureSubject(t)
	answer := address(t, "192.0.2.1", "0")
	up.say(func(r received) [][]byte {
		wrong := r.reply(t)
		wrong.Id++
		if up.asked() == 1 {
			return packed(t, wrong)
		}
		return answer(r)
	})
	apply, err := s.Prepare(Config{Zones: rootZone(s.settings.Load().upstreams()[0].Upstream), Timeout: shortTimeout})
	require.NoError(t, err)
	apply()
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, int64(2), up.accepted.Load(), "the first query was not answered")
}

func TestConnectionsAreBounded(t *testing.T) {
	s, up := secureSubject(t)
	g, open := newGate(t)
	up.say(g.before(address(t, "192.0.2.1", "0")))
	const clients = 3 * maxConns
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			_, err := s.ask(t, strconv.Itoa(i)+".example")
			if err != nil {
				t.Error(err)
			}
		})
	}
	require.Eventually(t, func() bool { return up.asked() == maxConns }, waitTime, time.Millisecond, "the first of each connection")
	require.Equal(t, int64(maxConns), up.accepted.Load())
	open()
	work.Wait()
	require.Equal(t, clients, up.asked())
	p := s.pool()
	require.Eventually(t, func() bool { return p.idleCount() <= maxIdle }, waitTime, time.Millisecond)
	require.False(t, p.sharing(), "each question was answered before the next one")
}

// pool returns the connections to the only upstream.
func (s *subject) pool() *pool { return s.settings.Load().upstreams()[0].pool }

func (p *pool) idleCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle()
}

func TestAConnectionFullOfWhatNobodyAskedForIsClosed(t *testing.T) {
	s, up := secureSubject(t)
	answer := address(t, "192.0.2.1", "0")
	up.say(func(r received) [][]byte {
		var strays [][]byte
		for range maxIgnored {
			m := r.reply(t)
			m.Id++
			strays = append(strays, packed(t, m)...)
		}
		return append(strays, answer(r)...)
	})
	_, err := s.ask(t, "a.example")
	require.ErrorIs(t, err, ErrNetwork)
	require.InDelta(t, maxIgnored, s.count(t, "mep_dns_forward_ignored_total", otherID), 0)
	up.say(answer)
	_, err = s.ask(t, "b.example")
	require.NoError(t, err)
}

func TestAServerThatShakesNoHandsIsGivenUp(t *testing.T) {
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer streams.Close()
	up := Upstream{Addr: streams.Addr().(*net.TCPAddr).AddrPort(), TLS: true}
	s := newSubject(t, Config{Zones: rootZone(up), Timeout: 400 * time.Millisecond})
	_, err = s.ask(t, "a.example")
	require.ErrorIs(t, err, ErrTimeout)
	p := s.pool()
	require.Eventually(t, func() bool { return p.idleCount() == 0 }, waitTime, time.Millisecond)
}

func TestQueriesOverTLSArePadded(t *testing.T) {
	s, up := secureSubject(t)
	for n := 1; n < 60; n += 7 {
		_, err := s.ask(t, strings.Repeat("a", n)+".example")
		require.NoError(t, err)
	}
	for _, r := range up.received() {
		require.Zero(t, len(r.raw)%queryBlock, "%d octets", len(r.raw))
		require.IsType(t, &dns.EDNS0_PADDING{}, r.IsEdns0().Option[0])
	}
}

func TestConnectionsNobodyUsesAreClosed(t *testing.T) {
	s, up := secureSubject(t)
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	p := s.pool()
	require.Equal(t, 1, p.idleCount())
	p.drop(time.Now().Add(-idleTime))
	require.Equal(t, 1, p.idleCount(), "it was used just now")
	p.drop(time.Now().Add(time.Second))
	require.Zero(t, p.idleCount())
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, int64(2), up.accepted.Load())
	apply, err := s.Prepare(Config{})
	require.NoError(t, err)
	apply()
	require.Zero(t, p.idleCount(), "its upstream is gone")
}
