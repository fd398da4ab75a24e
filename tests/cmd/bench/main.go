// Command bench compares the platform with yardsticks: each figure is measured in the same run as that of its yardstick, in
// alternating rounds, and the medians are compared.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

type options struct {
	mep    string
	rounds int
	round  time.Duration
	dir    string
	// profiles is a directory for CPU profiles of our programs; "" disables them.
	profiles string
	// goClient sends requests with Go's HTTP client, as most Go apps do, instead of the bench's own client, which leaves more
	// of the processor to the server.
	goClient bool
}

// measure is one row of the report.
type measure struct {
	name string
	run  func(*options) error
}

var measures = []measure{
	{"register", benchRegister},
	{"discover", benchDiscover},
	{"scale", benchScale},
	{"list", benchList},
	{"authorised", benchAuthorised},
	{"token", benchToken},
	{"lockout", benchLockout},
	{"notify", benchNotify},
	{"heartbeat", benchHeartbeat},
	{"start", benchStart},
	{"configure", benchConfigure},
	{"rule", benchRule},
	{"memory", benchMemory},
	{"dns", benchDNS},
	{"dns-latency", benchDNSLatency},
	{"dns-rule", benchDNSRule},
	{"dns-million", benchDNSMillion},
	{"dns-cached", benchDNSCached},
	{"dns-churn", benchDNSChurn},
	{"gateway", benchGateway},
	{"gateway-latency", benchGatewayLatency},
	{"gateway-change", benchGatewayChange},
	{"gateway-services", benchGatewayServices},
	{"gateway-quota", benchGatewayQuota},
	{"gateway-websockets", benchGatewayWebSockets},
}

func main() {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "yardstick-") {
		if err := yardstick(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	var only string
	flag.StringVar(&o.mep, "mep", "bin/mep", "the program to measure")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each side")
	flag.DurationVar(&o.round, "round", 2*time.Second, "length of a round")
	flag.StringVar(&only, "only", "", "comma-separated names of measures; default: all")
	flag.StringVar(&o.profiles, "profile", "", "directory for profiles of the processor time of our programs, which cost some of it")
	flag.Parse()
	dir, err := os.MkdirTemp("", "mep-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o.dir = dir
	code := 0
	for _, m := range measures {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		fmt.Printf("== %s\n", m.name)
		if err := m.run(&o); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func report(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// compare reports the ratio of two medians; a target of 0 means none.
func compare(what, unit string, ours, theirs []float64, target float64) {
	a, b := median(ours), median(theirs)
	goal := "no target"
	if target > 0 {
		goal = fmt.Sprintf("target %.2f", target)
	}
	report("%s: ours %.0f %s, yardstick %.0f %s, ratio %.2f (%s)", what, a, unit, b, unit, a/b, goal)
}

func percentile(d []time.Duration, p float64) time.Duration {
	s := slices.Sorted(slices.Values(d))
	if len(s) == 0 {
		return 0
	}
	return s[min(len(s)-1, int(p*float64(len(s))))]
}
