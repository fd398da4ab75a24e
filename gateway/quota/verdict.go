package quota

import (
	"net/http"
	"strconv"
	"time"
)

// Verdict is the decision about a call.
type Verdict struct {
	// Allowed says that the call may proceed. The call is counted, unless Away is set.
	Allowed bool
	// Away says that the quotas could not be checked: etcd does not answer, and what this replica held is used up.
	Away bool
	// Per, Limit, Remaining and Reset are those of the tightest quota: if a used-up quota caused the refusal, the used-up quota that
	// takes longest to reset; otherwise the quota with the fewest calls left.
	Per              string
	Limit, Remaining int64
	Reset            time.Duration

	n      int
	states [kinds]standing
}

// standing is the state of one quota.
type standing struct {
	per              string
	limit, remaining int64
	reset, span      time.Duration
}

// awayRetry is how long a client should wait before it tries again while etcd is unavailable.
const awayRetry = time.Second

// RetryAfter returns how long to wait before a refused call may be tried again; 0 if the call was allowed.
func (v *Verdict) RetryAfter() time.Duration {
	switch {
	case v.Allowed:
		return 0
	case v.Away:
		return awayRetry
	}
	return v.Reset
}

// add takes the state of a quota into account. Used-up quotas take precedence over others.
func (v *Verdict) add(s standing) {
	v.states[v.n] = s
	v.n++
	switch {
	case v.n == 1, s.remaining < v.Remaining, s.remaining == v.Remaining && s.reset > v.Reset:
		v.Per, v.Limit, v.Remaining, v.Reset = s.per, s.limit, s.remaining, s.reset
	}
}

// Names of header fields in the canonical form of http.Header.
const (
	fieldPolicy     = "Ratelimit-Policy"
	fieldState      = "Ratelimit"
	fieldLimit      = "X-Ratelimit-Limit"
	fieldRemaining  = "X-Ratelimit-Remaining"
	fieldReset      = "X-Ratelimit-Reset"
	fieldRetryAfter = "Retry-After"
)

// SetHeader sets the header fields of a response that tell the client about its quotas: RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10), with a member for every quota, named after its window; and, if the call was refused,
// X-RateLimit-Limit, -Remaining and -Reset of the tightest quota, with Reset in seconds from now, and Retry-After. It replaces existing
// fields of the same names. A verdict on a call without quotas changes nothing.
func (v *Verdict) SetHeader(h http.Header) {
	if v.n == 0 {
		return
	}
	// One allocation for all of the text, and one for all of the values.
	var room [512]byte
	text, ends := v.fields(room[:0])
	all, values, begin := string(text), make([]string, len(ends)), 0
	for i, end := range ends {
		values[i] = all[begin:end]
		begin = end
	}
	for i, name := range [...]string{fieldPolicy, fieldState, fieldLimit, fieldRemaining, fieldReset, fieldRetryAfter} {
		if values[i] != "" {
			h[name] = values[i : i+1 : i+1]
		}
	}
}

// fields appends the values of the header fields and returns where each of them ends.
func (v *Verdict) fields(b []byte) ([]byte, [6]int) {
	var ends [6]int
	for i := range v.states[:v.n] {
		s := &v.states[i]
		b = member(b, i, s.per, ";q=", s.limit, ";w=", s.span)
	}
	ends[0] = len(b)
	for i := range v.states[:v.n] {
		s := &v.states[i]
		b = member(b, i, s.per, ";r=", s.remaining, ";t=", s.reset)
	}
	ends[1] = len(b)
	if v.Allowed {
		ends[2], ends[3], ends[4], ends[5] = len(b), len(b), len(b), len(b)
		return b, ends
	}
	b = strconv.AppendInt(b, v.Limit, 10)
	ends[2] = len(b)
	b = strconv.AppendInt(b, v.Remaining, 10)
	ends[3] = len(b)
	b = strconv.AppendInt(b, seconds(v.Reset), 10)
	ends[4] = len(b)
	if after := v.RetryAfter(); after > 0 {
		b = strconv.AppendInt(b, seconds(after), 10)
	}
	ends[5] = len(b)
	return b, ends
}

// member appends the i-th member of a List, a String with two parameters (RFC 9651).
func member(b []byte, i int, name, first string, a int64, second string, d time.Duration) []byte {
	if i > 0 {
		b = append(b, ", "...)
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"')
	b = append(b, first...)
	b = strconv.AppendInt(b, a, 10)
	b = append(b, second...)
	return strconv.AppendInt(b, seconds(d), 10)
}

// seconds returns d in seconds, rounded up so that clients do not come back too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
