package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout is how long to wait for a response.
const answerTimeout = 500 * time.Millisecond

// tally counts the outcomes of queries.
type tally struct {
	answered, lost, wrong int
	// overrun counts lost responses that the bench's own sockets had no room for, which is not the server's fault.
	overrun int
	// changed counts correct answers with a changed address.
	changed int
	// took holds the response times, if they are of interest.
	took []time.Duration
}

func (t *tally) add(o *tally) {
	t.answered += o.answered
	t.lost += o.lost
	t.wrong += o.wrong
	t.overrun += o.overrun
	t.changed += o.changed
	t.took = append(t.took, o.took...)
}

// fault returns an error unless all queries were answered correctly.
func (t *tally) fault() error {
	if t.lost+t.wrong > 0 {
		return fmt.Errorf("%d of %d questions were not answered (%d of these answers were lost in the bench), %d answers were wrong", t.lost,
			t.answered+t.lost, t.overrun, t.wrong)
	}
	return nil
}

// asker sends queries over its own socket.
type asker struct {
	fd      int
	pending [1 << 16]pending // by id
	waiting int
	next    uint16
	out     [512]byte
}

type pending struct {
	*question
	sent time.Time
}

func newAsker(addr string) (*asker, error) {
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	a := &asker{fd: fd}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
		unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: to.AddrPort().Addr().As4()}),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return a, nil
}

func (a *asker) ask(q *question, at time.Time) error {
	a.next++
	for a.pending[a.next].question != nil { // still pending after the ids have wrapped around
		a.next++
	}
	a.pending[a.next] = pending{q, at}
	a.waiting++
	n := copy(a.out[:], q.packet)
	binary.BigEndian.PutUint16(a.out[:], a.next)
	_, err := unix.Write(a.fd, a.out[:n])
	return err
}

// hear reads a response; false means that there is none.
func (a *asker) hear(buf []byte, t *tally, at func() time.Time) (bool, error) {
	n, err := unix.Read(a.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, err
	case n < 2 || a.pending[binary.BigEndian.Uint16(buf)].question == nil:
		t.wrong++ // no query is pending for it
		return true, nil
	}
	asked := &a.pending[binary.BigEndian.Uint16(buf)]
	t.answered++
	switch asked.judge(buf[:n]) {
	case wrong:
		t.wrong++
	case changed:
		t.changed++
	case right:
	}
	if at != nil {
		t.took = append(t.took, at().Sub(asked.sent))
	}
	asked.question = nil
	a.waiting--
	return true, nil
}

// crew is a group of askers served by one thread with as few system calls as possible, which on two cores leaves most of the
// processor to the server.
type crew struct {
	askers    []*asker
	polled    []unix.PollFd
	buf       [4096]byte
	questions []question
	place     int // index into the questions
	tally
}

// crewSize is the number of askers of a crew, and window the number of queries that each has in flight during a flood.
const (
	crewSize = 8
	window   = 16
)

func newCrew(addr string, questions []question, place int) (*crew, error) {
	c := &crew{questions: questions, place: place}
	for range crewSize {
		a, err := newAsker(addr)
		if err != nil {
			c.close()
			return nil, err
		}
		c.askers = append(c.askers, a)
		c.polled = append(c.polled, unix.PollFd{Fd: int32(a.fd), Events: unix.POLLIN})
	}
	return c, nil
}

func (c *crew) close() {
	for _, a := range c.askers {
		_ = unix.Close(a.fd)
	}
}

func (c *crew) ask(a *asker, at time.Time) error {
	q := &c.questions[c.place%len(c.questions)]
	c.place++
	return a.ask(q, at)
}

// listen receives responses for up to within, or only those already there, and calls heard for each. It returns their number.
func (c *crew) listen(within time.Duration, at func() time.Time, heard func(*asker) error) (n int, err error) {
	timeout := unix.NsecToTimespec(int64(max(0, within)))
	for {
		_, err := unix.Ppoll(c.polled, &timeout, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) { // caused by the Go runtime's signals
			return 0, err
		}
	}
	for i, a := range c.askers {
		if c.polled[i].Revents == 0 {
			continue
		}
		for range window {
			ok, err := a.hear(c.buf[:], &c.tally, at)
			if err != nil {
				return n, err
			}
			if !ok {
				break
			}
			n++
			if err := heard(a); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// finish waits for outstanding responses and counts those that do not arrive as lost.
func (c *crew) finish(at func() time.Time) error {
	none := func(*asker) error { return nil }
	for c.waiting() > 0 {
		n, err := c.listen(answerTimeout, at, none)
		if err != nil {
			return err
		}
		if n == 0 {
			c.lost += c.waiting()
			c.overrun, err = c.drops()
			return err
		}
	}
	return nil
}

// drops returns the number of responses that the askers' sockets had no room for.
func (c *crew) drops() (n int, err error) {
	for _, a := range c.askers {
		own, err := unix.Getsockname(a.fd)
		if err != nil {
			return 0, err
		}
		dropped, err := udpDrops(own.(*unix.SockaddrInet4).Port)
		if err != nil {
			return 0, err
		}
		n += dropped
	}
	return n, nil
}

func (c *crew) waiting() int {
	n := 0
	for _, a := range c.askers {
		n += a.waiting
	}
	return n
}

// flood sends queries as fast as responses arrive, up to a number of queries or a duration.
func (c *crew) flood(most int, d time.Duration) error {
	end := time.Now().Add(d)
	asked := 0
	again := func(a *asker) error {
		for asked < most && a.waiting < window {
			asked++
			if err := c.ask(a, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, a := range c.askers {
		if err := again(a); err != nil {
			return err
		}
	}
	for asked < most && time.Now().Before(end) {
		n, err := c.listen(answerTimeout, nil, again)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	return c.finish(nil)
}

// flood queries a server for d, as fast as it responds, and returns the number of responses per second.
func flood(addr string, questions []question, d time.Duration) (t tally, rate float64, err error) {
	const crews = 2
	var list [crews]*crew
	for i := range list {
		if list[i], err = newCrew(addr, questions, i*len(questions)/crews); err != nil {
			return t, 0, err
		}
		defer list[i].close()
	}
	var all sync.WaitGroup
	var faults [crews]error
	start := time.Now()
	for i, c := range list {
		all.Go(func() { faults[i] = c.flood(1<<62, d) })
	}
	all.Wait()
	elapsed := time.Since(start)
	for _, c := range list {
		t.add(&c.tally)
	}
	return t, float64(t.answered) / elapsed.Seconds(), errors.Join(faults[:]...)
}

// verify sends every query once and expects the correct answer.
func verify(addr string, questions []question) error {
	c, err := newCrew(addr, questions, 0)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.flood(len(questions), time.Minute); err != nil {
		return err
	}
	if c.answered < len(questions) {
		return fmt.Errorf("%s answered %d of %d questions", addr, c.answered, len(questions))
	}
	return c.fault()
}

// pace sends a server a fixed number of queries per second for d, regardless of responses, and returns the response times.
func pace(addr string, questions []question, perSecond float64, d time.Duration) (tally, error) {
	c, err := newCrew(addr, questions, 0)
	if err != nil {
		return tally{}, err
	}
	defer c.close()
	none := func(*asker) error { return nil }
	start := time.Now()
	due := func(n int) time.Time { return start.Add(time.Duration(float64(n) / perSecond * float64(time.Second))) }
	// Late queries are sent at once; the total number does not change.
	for asked, count := 0, int(perSecond*d.Seconds()); asked < count; {
		now := time.Now()
		for ; asked < count && !due(asked).After(now); asked++ {
			if err := c.ask(c.askers[asked%crewSize], time.Now()); err != nil {
				return c.tally, err
			}
		}
		if _, err := c.listen(time.Until(due(asked)), time.Now, none); err != nil {
			return c.tally, err
		}
	}
	return c.tally, c.finish(time.Now)
}
