package blackbox

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

const timing = supportRoot + "/timing"

// clock is an NTP server whose clock is off by some time, and that can fall silent.
type clock struct {
	addr   string
	off    atomic.Int64 // nanoseconds
	silent atomic.Bool
	asked  atomic.Int64
}

func newClock(t *testing.T, off time.Duration) *clock {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &clock{addr: conn.LocalAddr().String()}
	c.off.Store(int64(off))
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		request := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(request)
			if err != nil {
				return
			}
			c.asked.Add(1)
			if n < 48 || c.silent.Load() {
				continue
			}
			now := stamp(time.Now().Add(time.Duration(c.off.Load())))
			answer := make([]byte, 48)
			answer[0], answer[1], answer[2], answer[3] = 0b00_100_100, 2, 6, 0xEC // no leap, version 4, a server; stratum 2
			binary.BigEndian.PutUint32(answer[12:], 0x0A000001)
			binary.BigEndian.PutUint64(answer[16:], now-1<<32)
			copy(answer[24:], request[40:48])
			binary.BigEndian.PutUint64(answer[32:], now)
			binary.BigEndian.PutUint64(answer[40:], now)
			if _, err := conn.WriteTo(answer, from); err != nil {
				return
			}
		}
	}()
	return c
}

// stamp is a time as NTP has it.
func stamp(t time.Time) uint64 {
	const from1900 = 2208988800
	return uint64(t.Unix()+from1900)<<32 | uint64(t.Nanosecond())<<32/1_000_000_000
}

// status waits until the platform's clock is as it is to be.
func status(t *testing.T, c *harness.Client, want string) {
	t.Helper()
	harness.Eventually(t, "the clock is "+want, func() error {
		got := c.Get(timing + "/current_time").Is(200).Object()["timeSourceStatus"]
		return harness.Not(got == want, "it is %v", got)
	})
}

func TestTheTimeIsThatOfThePlatform(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.Client(t)
	for _, root := range []string{timing, "/mep" + timing, v1(timing), "/mep" + v1(timing)} {
		for path, member := range map[string]string{root + "/current_time": "", root + "/timing_caps": "timeStamp"} {
			before := time.Now()
			answer := c.Get(path).Is(200)
			after := time.Now()
			o := answer.Object()
			if member != "" {
				o = o[member].(object)
			} else {
				require.Contains(t, []any{"TRACEABLE", "NONTRACEABLE"}, o["timeSourceStatus"])
			}
			nanos := o["nanoSeconds"].(float64)
			require.True(t, nanos >= 0 && nanos < 1e9, "%v", o)
			at := time.Unix(int64(o["seconds"].(float64)), int64(nanos))
			require.False(t, at.Before(before) || at.After(after), "%s is not between %s and %s", at, before, after)
			require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		}
	}
	caps := c.Get(timing + "/timing_caps").Object()
	require.Empty(t, without(caps, "timeStamp"), "nothing is offered that was not configured")
}

func TestTheClockIsComparedWithAnNTPServer(t *testing.T) {
	t.Parallel()
	t.Run("that agrees", func(t *testing.T) {
		t.Parallel()
		server := newClock(t, 200*time.Millisecond)
		p := harness.Start(t, harness.Args("--timing-ntp-server="+server.addr, "--timing-interval=8s"))
		c := p.Client(t)
		status(t, c, "TRACEABLE")
		asked := server.asked.Load()
		for range 50 {
			c.Get(timing + "/current_time").Is(200)
		}
		require.LessOrEqual(t, server.asked.Load(), asked+1, "no request asks")
		same(t, []any{object{
			"ntpServerAddrType": "IP_ADDRESS", "ntpServerAddr": "127.0.0.1", "minPollingInterval": 6, "maxPollingInterval": 10,
			"localPriority": 1, "authenticationOption": "NONE",
		}}, c.Get(timing + "/timing_caps").Object()["ntpServers"])
		seconds := c.Get(timing + "/current_time").Object()["seconds"].(float64)
		require.InDelta(t, time.Now().Unix(), seconds, 5)
	})
	t.Run("that does not", func(t *testing.T) {
		t.Parallel()
		server := newClock(t, 10*time.Second)
		p := harness.Start(t, harness.Config(fmt.Sprintf("timing: {ntpServer: %q, interval: 8s}\n", server.addr)))
		c := p.Client(t)
		harness.Eventually(t, "the server is asked", func() error { return harness.Not(server.asked.Load() > 0, "no") })
		status(t, c, "NONTRACEABLE")
		// What the operator changes counts at once.
		require.True(t, p.Reload(fmt.Sprintf("timing: {ntpServer: %q, interval: 8s, maxOffset: 1m}\n", server.addr)))
		status(t, c, "TRACEABLE")
		require.False(t, p.Reload("timing: {interval: 1s}\n"))
		status(t, c, "TRACEABLE")
	})
	t.Run("that does not answer", func(t *testing.T) {
		t.Parallel()
		server := newClock(t, 0)
		server.silent.Store(true)
		p := harness.Start(t, harness.Args("--timing-ntp-server="+server.addr))
		c := p.Client(t)
		harness.Eventually(t, "the server is asked", func() error { return harness.Not(server.asked.Load() > 0, "no") })
		begin := time.Now()
		for range 20 {
			require.Equal(t, "NONTRACEABLE", c.Get(timing + "/current_time").Is(200).Object()["timeSourceStatus"])
		}
		require.Less(t, time.Since(begin), 30*time.Second, "nobody waits for it")
	})
}

func TestTimingCapabilitiesAreWhatWasConfigured(t *testing.T) {
	t.Parallel()
	const text = `
timing:
  ntpServers:
    - {ntpServerAddrType: DNS_NAME, ntpServerAddr: ntp.example, minPollingInterval: 3, maxPollingInterval: 17, localPriority: 2, authenticationOption: SYMMETRIC_KEY, authenticationKeyNum: 7}
    - {ntpServerAddrType: IP_ADDRESS, ntpServerAddr: "2001:db8::1", minPollingInterval: 4, maxPollingInterval: 10, localPriority: 1, authenticationOption: NONE}
  ptpMasters:
    - {ptpMasterIpAddress: 10.0.0.1, ptpMasterLocalPriority: 128, delayReqMaxRate: 16}
`
	p := harness.Start(t, harness.Config(text))
	c := p.Client(t)
	same(t, object{
		"ntpServers": []any{
			object{"ntpServerAddrType": "DNS_NAME", "ntpServerAddr": "ntp.example", "minPollingInterval": 3, "maxPollingInterval": 17, "localPriority": 2, "authenticationOption": "SYMMETRIC_KEY", "authenticationKeyNum": 7},
			object{"ntpServerAddrType": "IP_ADDRESS", "ntpServerAddr": "2001:db8::1", "minPollingInterval": 4, "maxPollingInterval": 10, "localPriority": 1, "authenticationOption": "NONE"},
		},
		"ptpMasters": []any{object{"ptpMasterIpAddress": "10.0.0.1", "ptpMasterLocalPriority": 128, "delayReqMaxRate": 16}},
	}, without(c.Get(timing+"/timing_caps").Is(200).Object(), "timeStamp"))
	for name, bad := range map[string]string{
		"an interval of 2":       "timing: {ntpServers: [{ntpServerAddrType: DNS_NAME, ntpServerAddr: a.example, minPollingInterval: 2, maxPollingInterval: 17, localPriority: 1, authenticationOption: NONE}]}\n",
		"a key without a need":   "timing: {ntpServers: [{ntpServerAddrType: DNS_NAME, ntpServerAddr: a.example, minPollingInterval: 3, maxPollingInterval: 17, localPriority: 1, authenticationOption: NONE, authenticationKeyNum: 1}]}\n",
		"a need without a key":   "timing: {ntpServers: [{ntpServerAddrType: DNS_NAME, ntpServerAddr: a.example, minPollingInterval: 3, maxPollingInterval: 17, localPriority: 1, authenticationOption: SYMMETRIC_KEY}]}\n",
		"a name as an address":   "timing: {ntpServers: [{ntpServerAddrType: IP_ADDRESS, ntpServerAddr: a.example, minPollingInterval: 3, maxPollingInterval: 17, localPriority: 1, authenticationOption: NONE}]}\n",
		"a master at no address": "timing: {ptpMasters: [{ptpMasterIpAddress: a.example, ptpMasterLocalPriority: 1, delayReqMaxRate: 1}]}\n",
		"an unknown member":      "timing: {ptpMasters: [{ptpMasterIpAddress: 10.0.0.1, ptpMasterLocalPriority: 1, delayReqMaxRate: 1, x: 1}]}\n",
	} {
		require.False(t, p.Reload(bad), name)
	}
	require.True(t, p.Reload("timing: {ptpMasters: [{ptpMasterIpAddress: 10.0.0.2, ptpMasterLocalPriority: 1, delayReqMaxRate: 1}]}\n"))
	require.Nil(t, c.Get(timing + "/timing_caps").Object()["ntpServers"])
}
