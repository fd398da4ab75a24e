package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// response is an upstream's response to a query.
type response struct {
	msg  *dns.Msg
	sent string // the name as it was sent
	capitals
}

// exchanger asks one upstream.
type exchanger struct {
	upstream   *upstream
	question   *Question
	udpSize    int // 0: without EDNS
	randomCase bool
	limit      time.Duration // for each transport that is tried
	metrics    *metrics
	route      atomic.Pointer[route] // nil before the question is sent, and when nothing can be done about a late answer
}

// route is how a question was sent, for use when its answer is late.
type route struct {
	// again resends the question the same way; nil if the question is asked on another connection instead.
	again func()
	// overdue notes that the answer should have come by now; it may be nil.
	overdue func()
}

// sent records how the question was sent. forget takes that back.
func (x *exchanger) sent(r *route) (forget func()) {
	x.route.Store(r)
	return func() { x.route.Store(nil) }
}

// overdue notes that the answer is late.
func (x *exchanger) overdue() {
	if r := x.route.Load(); r != nil && r.overdue != nil {
		r.overdue()
	}
}

// again asks once more without another socket. Over UDP it sends the same message, so that an attacker guessing IDs and ports has no more
// to hit, and the answer to either counts. Over TCP, and while a connection is being opened, the kernel retransmits. again reports false
// if only asking on another connection helps.
func (x *exchanger) again() bool {
	r := x.route.Load()
	if r == nil {
		return true
	}
	if r.again == nil {
		return false
	}
	r.again()
	return true
}

func (x *exchanger) query() *query {
	return newQuery(x.question, x.udpSize, x.randomCase, x.upstream.TLS)
}

// do sends the question and waits for the response.
func (x *exchanger) do(ctx context.Context) (*response, error) {
	if x.upstream.TLS {
		return x.bounded(ctx, x.overTLS)
	}
	resp, err := x.bounded(ctx, x.overUDP)
	if retry, ok := errors.AsType[overTCP](err); ok {
		x.metrics.tcp.WithLabelValues(string(retry)).Inc()
		return x.bounded(ctx, x.overTCP)
	}
	return resp, err
}

func (x *exchanger) bounded(ctx context.Context, exchange func(context.Context) (*response, error)) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	return exchange(ctx)
}

// overTCP is the error for a response over UDP that is a reason to ask again over TCP.
type overTCP string

func (e overTCP) Error() string { return "the response over UDP is not enough: " + string(e) }

// Reasons to ask over TCP. A response to the right question that lacks the capitals of the query may be forged, or the upstream does not
// preserve them; one without a question may also be forged, or the upstream did not understand EDNS; many messages that are not a
// response at all come from an attacker who guesses.
const (
	wasTruncated = overTCP("truncated")
	wasDoubtful  = overTCP("doubtful")
)

// buffers are for responses over UDP. A response that is larger than its buffer is cut off, and so cannot be decoded.
var buffers = sync.Pool{New: func() any { return new([maxUDPSize]byte) }}

// maxIgnored is how many messages other than the response a socket may receive: more suggest that somebody is guessing.
const maxIgnored = 32

// overUDP uses a new socket for each query: the kernel gives it a port that nobody can know, and drops packets that do not come from the
// upstream.
func (x *exchanger) overUDP(ctx context.Context) (*response, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(x.upstream.Addr))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer obey(ctx, conn)()
	q := x.query()
	if _, err := conn.Write(q.message()); err != nil {
		return nil, err
	}
	// An error of the second write does no harm: either it is one of the socket, which Read returns too, or the answer has come.
	defer x.sent(&route{again: func() { _, _ = conn.Write(q.message()) }})()
	buf := buffers.Get().(*[maxUDPSize]byte)
	defer buffers.Put(buf)
	for range maxIgnored {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		packed := buf[:n]
		mismatch := q.match(packed)
		if mismatch == otherCase && !x.randomCase { // case is insignificant then (RFC 4343)
			mismatch = matches
		}
		switch mismatch {
		case matches:
			if truncated(packed) {
				return nil, wasTruncated
			}
			msg, err := decode(packed)
			if err == nil {
				return &response{msg: msg, sent: q.sentName(), capitals: x.capitals(q, mismatch)}, nil
			}
			x.metrics.ignored.WithLabelValues(notDecodable).Inc()
		case otherCase, noQuestion:
			x.metrics.ignored.WithLabelValues(mismatch).Inc()
			return nil, wasDoubtful
		default:
			x.metrics.ignored.WithLabelValues(mismatch).Inc()
		}
	}
	return nil, wasDoubtful
}

func (x *exchanger) overTCP(ctx context.Context) (*response, error) {
	conn, err := dialTCP(ctx, x.upstream.Addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return x.over(ctx, conn)
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// over sends the question on a stream that nobody else uses, and waits for the response.
func (x *exchanger) over(ctx context.Context, conn net.Conn) (*response, error) {
	defer obey(ctx, conn)()
	q := x.query()
	if _, err := conn.Write(q.framed); err != nil {
		return nil, err
	}
	for {
		packed, err := readFramed(conn)
		if err != nil {
			return nil, err
		}
		if resp, err := x.judge(q, packed); resp != nil || err != nil {
			return resp, err
		}
	}
}

// judge examines a message received on a stream. Both results are nil when it is not the response.
func (x *exchanger) judge(q *query, packed []byte) (*response, error) {
	mismatch := q.match(packed)
	switch mismatch {
	case matches, otherCase: // the other end of a stream has been reached, and is no blind attacker
		msg, err := decode(packed)
		if err != nil {
			return nil, err
		}
		return &response{msg: msg, sent: q.sentName(), capitals: x.capitals(q, mismatch)}, nil
	case noQuestion:
		if msg, err := decode(packed); err == nil && msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
			return &response{msg: msg, sent: q.sentName()}, nil
		}
	}
	x.metrics.ignored.WithLabelValues(mismatch).Inc()
	return nil, nil //nolint:nilnil // go on reading
}

// capitals says whether a response that matches, except perhaps in case, preserves the capitals of the query.
func (x *exchanger) capitals(q *query, mismatch string) capitals {
	switch {
	case !x.randomCase || !q.hasCapitals():
		return capitalsUnknown
	case mismatch == otherCase:
		return capitalsLost
	}
	return capitalsKept
}

// readFramed reads a message preceded by its length.
func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// obey makes reads and writes on conn end when ctx ends. release stops the watch on ctx.
func obey(ctx context.Context, conn net.Conn) (release func() bool) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // fails only when closed, and then reads and writes fail too
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}
