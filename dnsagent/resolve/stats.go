package resolve

import (
	"strconv"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/dnsagent/listen"
)

// source is where an answer comes from.
type source uint8

const (
	sourceNone source = iota
	sourceTable
	sourceCache
	sourceUpstream
	sourceOverload
	sources
)

var sourceNames = [sources]string{"none", "table", "cache", "upstream", "overload"}

// rcodes is how many response codes are counted separately; higher ones count as the last.
const rcodes = 24

const transports = 3

// stats counts responses.
type stats struct {
	responses [transports][sources][rcodes]atomic.Uint64
	ignored   atomic.Uint64
}

func (s *stats) count(t listen.Transport, from source, rcode int) {
	s.responses[t][from][min(rcode, rcodes-1)].Add(1)
}

func (s *stats) register(reg prometheus.Registerer) {
	if reg != nil {
		reg.MustRegister(s)
	}
}

var (
	responsesDesc = prometheus.NewDesc("mep_dns_responses_total",
		"DNS responses, by transport, by where they come from (table, cache, upstream; none: refusals and faults) and by response code.",
		[]string{"transport", "source", "rcode"}, nil)
	ignoredDesc = prometheus.NewDesc("mep_dns_ignored_total", "Messages that were no DNS queries and were not answered.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *stats) Describe(ch chan<- *prometheus.Desc) { ch <- responsesDesc; ch <- ignoredDesc }

// Collect implements prometheus.Collector.
func (s *stats) Collect(ch chan<- prometheus.Metric) {
	for t := range s.responses {
		for from := range s.responses[t] {
			for rcode := range s.responses[t][from] {
				if n := s.responses[t][from][rcode].Load(); n > 0 {
					ch <- prometheus.MustNewConstMetric(responsesDesc, prometheus.CounterValue, float64(n),
						listen.Transport(t).String(), sourceNames[from], rcodeName(rcode))
				}
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(ignoredDesc, prometheus.CounterValue, float64(s.ignored.Load()))
}

func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return strconv.Itoa(rcode)
}
