package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Event is a server-sent event.
type Event struct {
	// ID is the last event id after the event, Type the name of the event.
	ID, Type string
	Data     Object
}

// eventData maps event types to the schemas of their data.
var eventData = map[string]message{
	"app": newMessage("mm5", "AppEvent"), "service": newMessage("mm5", "ServiceEvent"), "rule": newMessage("mm5", "RuleEvent"),
	"ruleStatus": newMessage("mm5", "RuleStatusEvent"), "operation": newMessage("mm5", "OperationEvent"), "reset": newMessage("mm5", "ResetEvent"),
}

// Stream is an event stream that is being followed.
type Stream struct {
	tb     testing.TB
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream has ended

	mu     sync.Mutex
	events []Event
	lastID string
	err    error // why the stream ended; nil while it is open and after a clean end
}

// Follow opens an event stream, which must succeed, and follows it until the test ends. It returns when the stream has begun:
// the stream includes all later changes. Every event is checked against the OpenAPI document.
func Follow(c *Client, target string, options ...RequestOption) *Stream {
	c.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.tb.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base()+target, nil)
	if err != nil {
		c.tb.Fatalf("harness: %v", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for _, o := range options {
		o(req)
	}
	resp, err := c.http.Transport.RoundTrip(req) //nolint:bodyclose // read closes it; the client's time-out is for answers that end
	if err != nil {
		c.tb.Fatalf("GET %s: %v", target, err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		c.tb.Fatalf("GET %s answered %d %s", target, resp.StatusCode, ct)
	}
	s := &Stream{tb: c.tb, cancel: cancel, done: make(chan struct{})}
	begun := make(chan struct{})
	go s.read(resp.Body, sync.OnceFunc(func() { close(begun) }))
	select {
	case <-begun:
	case <-s.done:
	}
	c.tb.Cleanup(func() { s.Close() })
	return s
}

// read reads the stream to its end according to WHATWG HTML 9.2.6. begun is called after each frame.
func (s *Stream) read(body io.ReadCloser, begun func()) {
	defer close(s.done)
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 8<<20)
	var event Event
	var data []string
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			s.dispatch(event, data)
			event, data = Event{}, nil
			begun()
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimPrefix(value, " "); name {
		case "event":
			event.Type = value
		case "data":
			data = append(data, value)
		case "id":
			event.ID = value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = lines.Err()
}

func (s *Stream) dispatch(event Event, data []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if event.ID != "" {
		s.lastID = event.ID
	}
	if len(data) == 0 {
		return
	}
	event.ID = s.lastID
	body := []byte(strings.Join(data, "\n"))
	kind, known := eventData[event.Type]
	err := json.Unmarshal(body, &event.Data)
	if err == nil && known {
		err = kind.check(body)
	}
	if err != nil || !known {
		s.tb.Errorf("event %s %q: %v: %s", event.ID, event.Type, err, body)
	}
	s.events = append(s.events, event)
}

// All returns the events so far, restricted to the given types if there are any.
func (s *Stream) All(types ...string) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.events), func(e Event) bool { return len(types) > 0 && !slices.Contains(types, e.Type) })
}

// LastID returns the last event id, which a client sends when it reconnects.
func (s *Stream) LastID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastID
}

// Await waits for an event for which wanted returns true, and returns the first one.
func (s *Stream) Await(tb testing.TB, what string, wanted func(Event) bool) Event {
	tb.Helper()
	var found Event
	Eventually(tb, what, func() error {
		events := s.All()
		i := slices.IndexFunc(events, wanted)
		if i < 0 {
			return fmt.Errorf("so far: %v", events)
		}
		found = events[i]
		return nil
	})
	return found
}

// Ended waits until the platform has ended the stream and returns the error, nil for a clean end.
func (s *Stream) Ended(tb testing.TB) error {
	tb.Helper()
	Eventually(tb, "the stream ends", func() error {
		select {
		case <-s.done:
			return nil
		default:
			return fmt.Errorf("it goes on")
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the stream.
func (s *Stream) Close() {
	s.cancel()
	<-s.done
}
