package blackbox

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// flood sends queries from an address over UDP as fast as that goes, and returns how many whole and how many truncated responses came,
// and how long that took.
func flood(t *testing.T, d *harness.Resolver, from string, queries []*rr.Msg) (whole, truncated int, took time.Duration) {
	t.Helper()
	conn, err := d.From(from).Dial()
	require.NoError(t, err)
	defer conn.Close()
	begin := time.Now()
	var last atomic.Int64 // when something came, since begin
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				done <- nil
				return
			}
			last.Store(int64(time.Since(begin)))
			var m rr.Msg
			if err := m.Unpack(buf[:n]); err != nil {
				done <- err
				return
			}
			if m.Truncated {
				truncated++
			} else {
				whole++
			}
		}
	}()
	for _, q := range queries {
		raw, err := q.Pack()
		require.NoError(t, err)
		_, err = conn.Write(raw)
		require.NoError(t, err)
	}
	for quiet := time.Duration(0); quiet < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		quiet = time.Since(begin) - time.Duration(last.Load())
	}
	took = time.Since(begin)
	require.NoError(t, conn.SetReadDeadline(time.Now()))
	require.NoError(t, <-done)
	return whole, truncated, took
}

// Whoever forges the address of a victim shall not reach it by way of the platform.
func TestAFloodOfEqualAnswersIsHeldBack(t *testing.T) {
	t.Parallel()
	const rate, queries = 10, 400
	p := harness.Start(t, owning(), harness.Args("--dns-rate-exempt=192.0.2.0/24", fmt.Sprint("--dns-rate-responses=", rate)))
	m, d := p.DNSManagement(t), p.DNS(t)
	m.Post(rrecord, []any{record("www.mec.example", "A", "192.0.2.1"), record("other.mec.example", "A", "192.0.2.2"), record("*.wild.mec.example", "A", "192.0.2.3")}).Is(200)
	network := 0
	for name, question := range map[string]func(i int) *rr.Msg{
		"one name": func(int) *rr.Msg { return harness.Question("www.mec.example", "A") },
		"one name in many cases": func(i int) *rr.Msg {
			return harness.Question([]string{"www.mec.example", "WWW.mec.example", "wwW.MEC.example"}[i%3], "A")
		},
		"names that are not":  func(i int) *rr.Msg { return harness.Question(fmt.Sprintf("n%d.mec.example", i), "A") },
		"types that are not":  func(i int) *rr.Msg { return harness.Question("www.mec.example", fmt.Sprintf("TYPE%d", 1000+i)) },
		"names of a wildcard": func(i int) *rr.Msg { return harness.Question(fmt.Sprintf("n%d.wild.mec.example", i), "A") },
		"names of others":     func(i int) *rr.Msg { return harness.Question(fmt.Sprintf("n%d.example", i), "A") },
		"all there is":        func(int) *rr.Msg { return harness.Question("www.mec.example", "ANY") },
		"notifications": func(int) *rr.Msg {
			q := harness.Question("www.mec.example", "SOA")
			q.Opcode = rr.OpcodeNotify
			return q
		},
	} {
		network++
		from := fmt.Sprintf("127.0.%d.1", 100+network)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := make([]*rr.Msg, queries)
			for i := range list {
				list[i] = question(i)
			}
			whole, truncated, took := flood(t, d, from, list)
			t.Logf("%d whole, %d truncated in %s", whole, truncated, took)
			require.Positive(t, whole)
			require.LessOrEqual(t, float64(whole), rate*(took.Seconds()+1)+1, "in %s", took)
			require.Positive(t, truncated, "who really asks can come back over TCP")
			require.Less(t, whole+truncated, queries*3/4)
			d.For(t).From(from).TCP().Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
		})
	}
	t.Run("others do not notice", func(t *testing.T) {
		d := d.For(t)
		list := make([]*rr.Msg, queries)
		for i := range list {
			list[i] = harness.Question("www.mec.example", "A")
		}
		flood(t, d, "127.0.99.1", list)
		d.From("127.0.98.1").Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
		d.From("127.0.99.2").Ask("other.mec.example", "A").Holds("NOERROR", "A 192.0.2.2")
	})
	t.Run("who shows a cookie is trusted", func(t *testing.T) {
		d := d.For(t).From("127.0.97.1")
		with := func(cookie string) func(m *rr.Msg) {
			return func(m *rr.Msg) {
				m.IsEdns0().Option = []rr.EDNS0{&rr.EDNS0_COOKIE{Code: rr.EDNS0COOKIE, Cookie: cookie}}
			}
		}
		cookie := d.TCP().Ask("www.mec.example", "A", with("0011223344556677")).Cookie()
		require.Len(t, cookie, 48)
		list := make([]*rr.Msg, 100)
		for i := range list {
			list[i] = harness.Question("www.mec.example", "A", with(cookie))
		}
		whole, _, _ := flood(t, d, "127.0.97.1", list)
		require.Len(t, list, whole)
		// It is good for the address it was given to, and for nobody who guesses.
		other := map[bool]string{true: "1", false: "0"}[cookie[47] == '0']
		for _, x := range []struct{ from, cookie string }{{"127.0.96.1", cookie}, {"127.0.97.1", cookie[:47] + other}} {
			for i := range list {
				list[i] = harness.Question("www.mec.example", "A", with(x.cookie))
			}
			whole, _, took := flood(t, d, x.from, list)
			require.LessOrEqual(t, float64(whole), rate*(took.Seconds()+1)+1)
		}
	})
}

// Nothing that comes from the platform is much larger than what it answers, unless it was asked for.
func TestThePlatformAmplifiesNothing(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	addresses := []any{}
	for i := range 80 {
		addresses = append(addresses, fmt.Sprintf("192.0.2.%d", i+1))
	}
	p.DNSManagement(t).Post(rrecord, record("big.mec.example", "A", addresses...)).Is(200)
	d := p.DNS(t)
	size := func(m *rr.Msg) (asked, answered int) {
		reply := d.Send(m)
		return m.Len(), len(reply.Raw)
	}
	for name, x := range map[string]struct {
		query *rr.Msg
		more  int // octets than were asked
	}{
		"ANY":                 {harness.Question("big.mec.example", "ANY"), 21},
		"too much":            {harness.Question("big.mec.example", "A"), 0},
		"too much for 512":    {harness.Question("big.mec.example", "A", harness.WithoutEDNS), 0},
		"a name of others":    {harness.Question("www.example", "A"), 6}, // the extended error
		"a transfer":          {harness.Question("mec.example", "IXFR"), 6},
		"another class":       {harness.Question("version.bind", "TXT", func(m *rr.Msg) { m.Question[0].Qclass = rr.ClassCHAOS }), 6},
		"a version of EDNS":   {harness.Question("big.mec.example", "A", func(m *rr.Msg) { m.IsEdns0().SetVersion(9) }), 0},
		"another opcode":      {harness.Question("big.mec.example", "A", func(m *rr.Msg) { m.Opcode = rr.OpcodeUpdate }), 0},
		"a status":            {harness.Question("big.mec.example", "A", func(m *rr.Msg) { m.Opcode = rr.OpcodeStatus }), 0},
		"two questions":       {harness.Question("big.mec.example", "A", func(m *rr.Msg) { m.Question = append(m.Question, m.Question[0]) }), 0},
		"a size that is none": {harness.Question("big.mec.example", "A", harness.WithSize(0)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked, answered := size(x.query)
			require.LessOrEqual(t, answered, asked+x.more)
		})
	}
	for name, raw := range map[string][]byte{
		"a response":    packed(new(rr.Msg).SetReply(harness.Question("big.mec.example", "A"))),
		"half a header": packed(harness.Question("big.mec.example", "A"))[:11],
		"nothing":       {},
		"one octet":     {0},
	} {
		t.Run(name+" is not answered", func(t *testing.T) {
			conn, err := d.Dial()
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write(raw)
			require.NoError(t, err)
			// The answer to what comes after it is the first there is.
			next := harness.Question("mec.example", "SOA")
			_, err = conn.Write(packed(next))
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(harness.Patience)))
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			require.NoError(t, err)
			var m rr.Msg
			require.NoError(t, m.Unpack(buf[:n]))
			require.Equal(t, next.Id, m.Id)
		})
	}
}
