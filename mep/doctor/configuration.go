package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openmep/mep/mepauth"
)

// Misconfigured returns the report on settings that cannot be used; err is the error of loading them. Nothing else is examined,
// because it could be the wrong thing. file is the configuration file; empty if there is none.
func Misconfigured(file string, err error) Report {
	f := &findings{check: checkConfiguration}
	for _, fault := range flatten(err) {
		subject, problem := split(fault.Error(), file)
		f.fail(subject, problem, "correct it in "+cmp.Or(file, "the configuration file")+
			", in the environment (MEP_…) or on the command line; docs/reference/configuration.md has all settings")
	}
	f.note("the other checks", "were left out: they need settings that are valid")
	return f.list
}

// flatten returns the errors that were joined.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// split separates the subject of a fault, with which most faults begin: a setting, or a line of the file.
func split(fault, file string) (subject, problem string) {
	first, rest, ok := strings.Cut(fault, " ")
	if !ok || slices.Contains([]string{"read", "flag", "environment"}, first) {
		return cmp.Or(file, "the settings") + ":", fault
	}
	return strings.TrimSuffix(first, ":"), rest
}

// configuration looks for settings that are valid but not safe.
func (x *examination) configuration(_ context.Context, f *findings) {
	if x.File == "" {
		f.ok("the settings", "are valid; there is no configuration file")
	} else {
		f.ok(x.File, "is valid")
		if info, err := os.Stat(x.File); err == nil && info.Mode().Perm()&0o002 != 0 {
			f.fail(x.File, "can be changed by every user of this machine", "chmod o-w "+x.File)
		}
	}
	if x.Common.Dev {
		f.warn("dev", "is on: HTTP without TLS, and callers need no token", "leave --dev out, except on a machine that only you use")
	}
	for _, p := range x.Common.Identity.Proxies {
		if prefix, err := netip.ParsePrefix(p); err == nil && prefix.Bits() == 0 {
			f.warn("proxies", "has "+p+", so that every client is believed about its address, which locks and limits go by",
				"name the networks of your proxies only")
		}
	}
	x.tokenSettings(f)
	x.names(f)
	if x.Server.CallbacksAllowLoopback && !x.Common.Dev {
		f.warn("callbacks.allowLoopback", "lets apps have requests sent to services of this machine that listen on loopback",
			"set it to false, unless apps run beside the platform")
	}
	if !x.Common.Dev && !loopback(x.Common.OpsListen) {
		f.note("ops.listen", "is "+x.Common.OpsListen+": from other machines it takes TLS and a token with the scope ops, for probes and metrics too")
	}
}

// tokenSettings checks the settings of the token service.
func (x *examination) tokenSettings(f *findings) {
	a := x.Auth
	if a.SignatureWindow == 0 {
		f.warn("auth.signatureWindow", "is 0s: a signed request may bear any date, so that one that was overheard can be used again after the day for which it is remembered",
			"set it to 15m, and give the agents that sign with local time the right time zone")
	}
	if a.RotateAfter == 0 {
		f.warn("auth.keys.rotateAfter", "is 0s: signing keys are never replaced by themselves", "set it to 720h, or run mep keys rotate regularly")
	}
	if n := guesses(a); n > maxGuesses {
		f.warn("auth.lockout", fmt.Sprintf("is so weak that it stops nobody: one client may try %d secret keys a day", int64(n)),
			"raise auth.lockout.duration and auth.lockout.window, or lower auth.lockout.failures; the defaults allow 576")
	}
	if a.SourceRate == 0 {
		f.warn("auth.rate.source", "is 0: one client may keep the token service busy", "set it to 20")
	}
}

// maxGuesses is how many secret keys a day a client may try before the lockout counts as ineffective: one each second.
const maxGuesses = 24 * 60 * 60

// guesses returns how many secret keys a client may try in a day, by being locked out again and again, or by staying one failure
// below the lockout.
func guesses(c *mepauth.Config) float64 {
	const day = 24 * time.Hour
	locked := float64(c.LockFailures) * float64(day) / float64(c.LockDuration)
	unlocked := float64(c.LockFailures-1) * float64(day) / float64(c.LockWindow)
	return max(locked, unlocked)
}

// loopback reports whether a listen address is reachable only from this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// portOf returns the port of a listen address; 0 if it is any free one.
func portOf(addr string) int {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	if n, err := strconv.Atoi(port); err == nil {
		return n
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return 0
	}
	return n
}
