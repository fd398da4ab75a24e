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

// response is what an upstream said to a query.
type response struct {
	msg  *dns.Msg
	sent string // the name as it was asked for
	capitals
}

// exchanger asks one upstream.
type exchanger struct {
	upstream   *upstream
	question   *Question
	udpSize    int // 0 is without EDNS
	randomCase bool
	limit      time.Duration // for each transport that is tried
	metrics    *metrics
	route      atomic.Pointer[route] // nil before the question is sent, and where nothing can be done about a late answer
}

// route is the way a question has gone, for when its answer is late.
type route struct {
	// again sends the same question the same way once more; nil where it is asked on another connection instead.
	again func()
	// overdue takes note that the answer should have come by now; it may be nil.
	overdue func()
}

// sent says how the question went out. What it returns takes that back.
func (x *exchanger) sent(r *route) (forget func()) {
	x.route.Store(r)
	return func() { x.route.Store(nil) }
}

// overdue takes note that the answer is late.
func (x *exchanger) overdue() {
	if r := x.route.Load(); r != nil && r.overdue != nil {
		r.overdue()
	}
}

// again asks once more without a further socket: over UDP with the same message, so that whoever guesses ids and ports has no more to hit,
// and the answer to either counts. Over TCP, and while a connection is being opened, the kernel sees to it. It reports false where only
// asking on another connection helps.
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

// overTCP is the error of a response over UDP that gives reason to ask again over TCP.
type overTCP string

func (e overTCP) Error() string { return "the response over UDP is not enough: " + string(e) }

// Reasons to ask over TCP. A response to the right question that has not the capitals of the query may be forged, or the upstream
// does not keep them; one without a question may be forged as well, or the upstream did not understand EDNS; many that are no response at
// all come from somebody who guesses.
const (
	wasTruncated = overTCP("truncated")
	wasDoubtful  = overTCP("doubtful")
)

// buffers are for responses over UDP. One that is larger than what was offered is cut off, and so not decodable.
var buffers = sync.Pool{New: func() any { return new([maxUDPSize]byte) }}

// maxIgnored is how many messages that are no response may come to a socket: more look as if somebody guesses.
const maxIgnored = 32

// overUDP uses a socket of its own for each query: the kernel gives it a port that nobody can know, and drops what comes from elsewhere
// than the upstream.
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
	// An error of the second time is no loss: it is that of the socket, which who reads from it is told, or the answer has come.
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
		if mismatch == otherCase && !x.randomCase { // which says nothing then (RFC 4343)
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

// over sends the question on a stream that nobody else uses.
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

// judge reads a message that came on a stream. Both results are nil when it is not the response.
func (x *exchanger) judge(q *query, packed []byte) (*response, error) {
	mismatch := q.match(packed)
	switch mismatch {
	case matches, otherCase: // whoever answers here has been reached, and is not blind
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

// capitals is what became of those of the query in a response that matches, but perhaps for them.
func (x *exchanger) capitals(q *query, mismatch string) capitals {
	switch {
	case !x.randomCase || !q.hasCapitals():
		return capitalsUnknown
	case mismatch == otherCase:
		return capitalsLost
	}
	return capitalsKept
}

// readFramed reads a message after its length.
func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// obey ends what waits on the connection when the context ends. What it returns ends that.
func obey(ctx context.Context, conn net.Conn) (release func() bool) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // fails only when closed, which is then seen by others
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}
