package blackbox

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// answering is a platform with a record, and what checks that it answers as ever and has grown within reason.
func answering(t *testing.T, opts ...harness.Option) (p *harness.Process, unharmed func()) {
	t.Helper()
	p = harness.Start(t, append([]harness.Option{owning()}, opts...)...)
	p.DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
	before := p.PeakMemory()
	return p, func() {
		t.Helper()
		d := p.DNS(t)
		for _, r := range []*harness.Resolver{d, d.TCP(), d.From("127.0.77.1"), d.TCP().From("127.0.77.2")} {
			r.Ask("www.mec.example", "A").Is("NOERROR", at("www.mec.example", 60, "A", "192.0.2.1"))
			r.Ask("other.mec.example", "A").Is("NXDOMAIN")
		}
		panics, ok := p.Metric(t, "mep_dns_panics_total")
		require.True(t, ok)
		require.Zero(t, panics, "%s", p.Log())
		grown := p.PeakMemory() - before
		require.Less(t, grown, int64(96<<20), "the memory grew by %d MiB", grown>>20)
	}
}

// mutated is a query of which something was changed, or nothing but noise.
func mutated(rng *rand.Rand) []byte {
	raw := make([]byte, rng.IntN(600))
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	if rng.IntN(4) == 0 {
		return raw
	}
	q := harness.Question([]string{"www.mec.example", "a.b.c.mec.example", "*.mec.example", ".", "1.2.0.192.in-addr.arpa", "www.example"}[rng.IntN(6)], "A")
	q.Question[0].Qtype, q.RecursionDesired = uint16(rng.IntN(300)), rng.IntN(2) == 0
	switch rng.IntN(4) {
	case 0:
		q.Extra = nil
	case 1:
		q.IsEdns0().Option = append(q.IsEdns0().Option, &rr.EDNS0_LOCAL{Code: uint16(rng.IntN(30)), Data: raw[:min(len(raw), 40)]})
	}
	query := packed(q)
	for range rng.IntN(4) {
		query[rng.IntN(len(query))] = byte(rng.Uint32())
	}
	switch rng.IntN(6) {
	case 0:
		query = query[:rng.IntN(len(query)+1)]
	case 1:
		query = append(query, raw...)
	}
	return query
}

func TestAHundredThousandMessagesThatAreNoQuestions(t *testing.T) {
	t.Parallel()
	p, unharmed := answering(t)
	const senders, each = 4, 25000
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			conn, err := p.DNS(t).Dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			var reading sync.WaitGroup
			reading.Go(func() {
				buf := make([]byte, 65536)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					// Whatever was asked, what is answered is an answer.
					var m rr.Msg
					if err := m.Unpack(buf[:n]); err != nil || !m.Response || n > 1500 {
						t.Errorf("answered %x: %v", buf[:n], err)
					}
				}
			})
			rng := rand.New(rand.NewPCG(7, uint64(s)))
			for range each {
				if _, err := conn.Write(mutated(rng)); err != nil {
					t.Error(err)
				}
			}
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			reading.Wait()
		})
	}
	sending.Wait()
	unharmed()
}

func TestStreamsThatAreNoQuestions(t *testing.T) {
	t.Parallel()
	p, unharmed := answering(t)
	frame := func(raw []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...) }
	question := packed(harness.Question("www.mec.example", "A"))
	padded := harness.Question("www.mec.example", "A")
	padded.IsEdns0().Option = []rr.EDNS0{&rr.EDNS0_PADDING{Padding: make([]byte, 65535-len(question)-4)}}
	for name, x := range map[string]struct {
		raw      []byte
		answered int
		closed   bool // by the platform, well before it would be for being idle
	}{
		"a length of none":               {[]byte{0, 0}, 0, true},
		"a question and a length of 0":   {append(frame(question), 0, 0), 1, true},
		"a query of 65535 octets":        {frame(packed(padded)), 1, false},
		"65535 octets of nothing":        {frame(make([]byte, 65535)), 1, false},
		"65535 octets of noise":          {frame([]byte(strings.Repeat("\xff", 65535))), 0, false},
		"HTTP":                           {[]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0, false},
		"three questions in one segment": {slices.Repeat(frame(question), 3), 3, false},
		"half a header":                  {frame(question[:5]), 0, false},
		"a response":                     {frame(packed(new(rr.Msg).SetReply(harness.Question("www.mec.example", "A")))), 0, false},
		"a transfer":                     {frame(packed(harness.Question("mec.example", "AXFR"))), 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := p.DNS(t).TCP().Dial()
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write(x.raw)
			require.NoError(t, err)
			if !x.closed { // whatever it was, the connection is as good as it was
				next := harness.Question("www.mec.example", "A")
				_, err = conn.Write(frame(packed(next)))
				require.NoError(t, err)
				x.answered++
			}
			if name == "HTTP" {
				x.answered = 0 // "GE" is the length of a message that does not come
			}
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(harness.Patience)))
			for range x.answered {
				var size uint16
				require.NoError(t, binary.Read(conn, binary.BigEndian, &size))
				raw := make([]byte, size)
				_, err := io.ReadFull(conn, raw)
				require.NoError(t, err)
				var m rr.Msg
				require.NoError(t, m.Unpack(raw))
				require.True(t, m.Response)
			}
			if x.closed || name == "HTTP" {
				_, err = conn.Read(make([]byte, 1))
				require.Error(t, err)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			}
		})
	}
	unharmed()
}

func TestThousandsOfIdleConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	p, unharmed := answering(t, harness.Args("--dns-connections=500"))
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	const addresses, each = 50, 60
	for a := range addresses {
		d := p.DNS(t).TCP().From(fmt.Sprintf("127.0.88.%d", a+1))
		for i := range each {
			conn, err := d.Dial()
			require.NoError(t, err)
			idle = append(idle, conn)
			switch i % 3 { // these say nothing, those begin to
			case 1:
				_, _ = conn.Write([]byte{0})
			case 2:
				_, _ = conn.Write([]byte{0, 60, 1, 2, 3})
			}
		}
		if a%10 == 9 {
			unharmed()
		}
	}
	open, _ := p.Metric(t, `mep_dns_connections{transport="tcp"}`)
	require.LessOrEqual(t, open, 500.0)
	unharmed()
	t.Run("nor does one client its like", func(t *testing.T) {
		d := p.DNS(t).TCP().From("127.0.89.1")
		for range 200 {
			conn, err := d.Dial()
			require.NoError(t, err)
			idle = append(idle, conn)
		}
		d.Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	})
}

// Whoever asks and asks and does not listen is not waited for.
func TestClientsThatDoNotListen(t *testing.T) {
	t.Parallel()
	p, unharmed := answering(t)
	addresses := []any{}
	for i := range 200 {
		addresses = append(addresses, fmt.Sprintf("10.0.0.%d", i+1))
	}
	p.DNSManagement(t).Post(rrecord, record("big.mec.example", "A", addresses...)).Is(200)
	query := packed(harness.Question("big.mec.example", "A"))
	framed := slices.Repeat(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...), 1000)
	var deaf sync.WaitGroup
	for i := range 20 {
		deaf.Go(func() {
			conn, err := p.DNS(t).TCP().From(fmt.Sprintf("127.0.87.%d", i+1)).Dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetWriteDeadline(time.Now().Add(2 * harness.Patience))
			for range 100 {
				if _, err := conn.Write(framed); err != nil {
					return // it was hung up
				}
			}
			t.Error("a hundred thousand questions were taken of somebody who does not take the answers")
		})
	}
	for range 10 {
		unharmed()
	}
	deaf.Wait()
	unharmed()
}

// Answers overtake each other: what is known does not wait for what is asked of others.
func TestQuestionsOfOneConnectionAreAnsweredAsTheyCan(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	release := make(chan struct{})
	up.Behave(func(x *harness.Exchange) {
		x.Await(release)
		x.Reply("192.0.2.53")
	})
	p, unharmed := answering(t, forwarding(up), harness.Args("--dns-forward-timeout=20s"))
	conn, err := p.DNS(t).TCP().Dial()
	require.NoError(t, err)
	c := &rr.Conn{Conn: conn}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	const questions = 12 // of one connection not very many wait at a time
	for i := range uint16(questions) {
		slow, known := harness.Question(fmt.Sprintf("slow%d.example", i), "A"), harness.Question("www.mec.example", "A")
		slow.Id, known.Id = i, questions+i
		require.NoError(t, c.WriteMsg(slow))
		require.NoError(t, c.WriteMsg(known))
		m, err := c.ReadMsg()
		require.NoError(t, err)
		require.Equal(t, known.Id, m.Id)
	}
	close(release)
	answered := map[uint16]bool{}
	for range questions {
		m, err := c.ReadMsg()
		require.NoError(t, err)
		require.Len(t, m.Answer, 1)
		require.Less(t, m.Id, uint16(questions))
		answered[m.Id] = true
	}
	require.Len(t, answered, questions)
	unharmed()
}
