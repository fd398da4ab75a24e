package quota

import (
	"net/http"
	"strconv"
	"time"
)

// Verdict is what is decided about a call.
type Verdict struct {
	// Allowed says that the call may go on. It is counted, unless Away is set.
	Allowed bool
	// Away says that the quota could not be asked for: etcd does not answer, and what this replica held is used up.
	Away bool
	// Per, Limit, Remaining and Reset are those of the tightest quota: of one that is used up when the call is refused for it, the
	// one that takes longest to begin anew; otherwise of the one with the fewest calls left.
	Per              string
	Limit, Remaining int64
	Reset            time.Duration

	n      int
	states [kinds]standing
}

// standing is how much there is of one quota.
type standing struct {
	per              string
	limit, remaining int64
	reset, span      time.Duration
}

// awayRetry is after what time a client may try again while etcd is away.
const awayRetry = time.Second

// RetryAfter is after what time a call that was refused may be tried again; 0 when it was allowed.
func (v *Verdict) RetryAfter() time.Duration {
	switch {
	case v.Allowed:
		return 0
	case v.Away:
		return awayRetry
	}
	return v.Reset
}

// add takes in how a quota stands. Those that are used up come before those that are not.
func (v *Verdict) add(s standing) {
	v.states[v.n] = s
	v.n++
	switch {
	case v.n == 1, s.remaining < v.Remaining, s.remaining == v.Remaining && s.reset > v.Reset:
		v.Per, v.Limit, v.Remaining, v.Reset = s.per, s.limit, s.remaining, s.reset
	}
}

// The names of header fields as http.Header spells them.
const (
	fieldPolicy     = "Ratelimit-Policy"
	fieldState      = "Ratelimit"
	fieldLimit      = "X-Ratelimit-Limit"
	fieldRemaining  = "X-Ratelimit-Remaining"
	fieldReset      = "X-Ratelimit-Reset"
	fieldRetryAfter = "Retry-After"
)

// SetHeader puts what the client should know into the header of its answer: RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10) with a member for every quota, named by its window; and when the call was refused
// X-RateLimit-Limit, -Remaining and -Reset of the tightest one, Reset in seconds from now, and Retry-After. Fields of the same names that
// are there already are replaced. A verdict about a call without quotas changes nothing.
func (v *Verdict) SetHeader(h http.Header) {
	if v.n == 0 {
		return
	}
	// One piece of memory for all of the text, and one for all of the values.
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

// fields appends the values of the header fields, and says where each of them ends.
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

// member appends the i-th member of a list, a string with two parameters (RFC 9651).
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

// seconds rounds up, so that nobody comes back too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
