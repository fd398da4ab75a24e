package listen

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// drop is the reason why a message has no response.
type drop int

const (
	dropRead     drop = iota // the system failed to deliver it
	dropPortZero             // a response to port 0 would go nowhere
	dropTooLong              // the message, or its response in a stream, is too long
	dropSilent               // the handler returned no response
	dropWrite                // the response could not be sent
	drops        = iota
)

var dropNames = [drops]string{"read", "port_zero", "too_long", "silent", "write"}

// ending is the reason why a connection ended.
type ending int

const (
	endNot         ending = iota // still open
	endClient                    // the client closed it
	endReset                     // the client, or a middlebox, reset it
	endIdle                      // no message for too long
	endTimeout                   // a message was not complete in time
	endMalformed                 // a message of length 0
	endHandshake                 // the TLS handshake failed
	endEvicted                   // closed to make room for another connection
	endLimit                     // refused: too many connections
	endSourceLimit               // refused: too many connections from that address
	endShutdown                  // the server stops
	endings        = iota
)

var endNames = [endings]string{
	"", "client", "reset", "idle", "timeout", "malformed", "handshake", "evicted", "limit", "address_limit", "shutdown",
}

// counts holds counters. Each reader of a UDP socket has its own, so that readers do not contend for them.
type counts struct {
	received, sent, overloaded, opened, acceptErrors atomic.Uint64

	dropped [drops]atomic.Uint64
	ended   [endings]atomic.Uint64
	_       [64]byte // keeps the next counts in another cache line
}

func (c *counts) drop(why drop)  { c.dropped[why].Add(1) }
func (c *counts) end(why ending) { c.ended[why].Add(1) }

// add adds the counters of o. It reads ended before opened, so that never more connections ended than were opened.
func (c *counts) add(o *counts) {
	for i := range o.ended {
		c.ended[i].Add(o.ended[i].Load())
	}
	for i := range o.dropped {
		c.dropped[i].Add(o.dropped[i].Load())
	}
	c.received.Add(o.received.Load())
	c.sent.Add(o.sent.Load())
	c.overloaded.Add(o.overloaded.Load())
	c.opened.Add(o.opened.Load())
	c.acceptErrors.Add(o.acceptErrors.Load())
}

// figures is a prometheus.Collector of the counters of a server.
type figures struct {
	server *Server
	of     [transports]*counts

	mu      sync.Mutex
	readers []*counts
}

func newFigures(s *Server) *figures {
	f := &figures{server: s}
	for t := range f.of {
		f.of[t] = new(counts)
	}
	return f
}

// forReader returns new counts for a reader.
func (f *figures) forReader() *counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := new(counts)
	f.readers = append(f.readers, c)
	return c
}

// total returns the sum of all counts of a transport.
func (f *figures) total(t Transport) *counts {
	sum := new(counts)
	sum.add(f.of[t])
	if t == UDP {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.readers {
			sum.add(c)
		}
	}
	return sum
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("mep_dns_"+name, help, labels, nil)
}

var (
	descReceived   = desc("packets_total", "Messages received by the DNS server.", "transport")
	descSent       = desc("sent_total", "Answers sent by the DNS server.", "transport")
	descDropped    = desc("dropped_total", "Messages without an answer, by reason: read (the system failed to give it out), port_zero (nobody can be answered there), too_long, silent (none is due, rate limiting included), write (it could not be sent).", "transport", "reason")
	descOverloaded = desc("overloaded_total", "Messages that could not wait for their answer because too many waited.", "transport")
	descPending    = desc("pending", "Messages that wait for their answer.")
	descPanics     = desc("panics_total", "Messages whose answering failed with a panic, which is in the log.")
	descOpen       = desc("connections", "Connections to the DNS server.", "transport")
	descOpened     = desc("connections_total", "Connections accepted, those refused at once included.", "transport")
	descEnded      = desc("connections_ended_total", "Connections that ended, by reason: client, reset, idle, timeout (half a message), malformed, handshake (of TLS), evicted (made room for another), limit and address_limit (refused), shutdown.", "transport", "reason")
	descAccept     = desc("accept_errors_total", "Connections the system failed to give out.", "transport")
)

// Describe implements prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descReceived, descSent, descDropped, descOverloaded, descPending, descPanics, descOpen, descOpened, descEnded, descAccept,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	give := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	count := func(d *prometheus.Desc, c *atomic.Uint64, labels ...string) {
		give(d, prometheus.CounterValue, float64(c.Load()), labels...)
	}
	for t := range Transport(transports) {
		sum, name := f.total(t), t.String()
		count(descReceived, &sum.received, name)
		count(descSent, &sum.sent, name)
		count(descOverloaded, &sum.overloaded, name)
		for why := range sum.dropped {
			count(descDropped, &sum.dropped[why], name, dropNames[why])
		}
		if t == UDP {
			continue
		}
		open := sum.opened.Load()
		for why := endClient; why < endings; why++ {
			count(descEnded, &sum.ended[why], name, endNames[why])
			open -= sum.ended[why].Load()
		}
		give(descOpen, prometheus.GaugeValue, float64(open), name)
		count(descOpened, &sum.opened, name)
		count(descAccept, &sum.acceptErrors, name)
	}
	give(descPending, prometheus.GaugeValue, float64(f.server.pending.len()))
	count(descPanics, &f.server.panics)
}
