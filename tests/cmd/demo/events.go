package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// watcher follows the events of the platform for the MEPM, in the background. It resumes an interrupted stream after the last
// event it received.
type watcher struct {
	manager *manager
	client  *http.Client
	stop    context.CancelFunc
	ended   chan struct{}
	last    string // id

	mu      sync.Mutex
	unshown []event // events since the story last looked
	streams int
	fault   error
	news    chan struct{}
}

// event is an event of the platform, with the data that is shown.
type event struct {
	id, kind string
	data     struct {
		AppInstanceID                              string
		Change, Lifecycle, PreviousLifecycle, Step string // of app instances
		SerName, ChangeType, State                 string // of services
		Kind, RuleID                               string // of rules
		InForce                                    bool
		Reconciler                                 string // of reports on rules
		Applied                                    []string
		Failed                                     []json.RawMessage
		LcmOperation, OperationState, Detail       string // of operations
	}
}

// watch starts following the events.
func (m *manager) watch(ctx context.Context) *watcher {
	h, err := m.creds.HTTPClient()
	must(err)
	h.Timeout = 0 // of an entire request, which is endless here
	w := &watcher{manager: m, client: h, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	ctx, w.stop = context.WithCancel(ctx)
	connected := make(chan struct{})
	go func() {
		defer close(w.ended)
		w.follow(ctx, sync.OnceFunc(func() { close(connected) }))
	}()
	select {
	case <-connected:
	case <-w.ended:
		must(w.fault)
	}
	return w
}

// close stops following the events.
func (w *watcher) close() {
	w.stop()
	<-w.ended
}

// follow reads one stream after another until ctx ends or something invalid is received.
func (w *watcher) follow(ctx context.Context, connected func()) {
	const lookAgain = 20 * time.Millisecond
	for ctx.Err() == nil {
		resp, err := w.open(ctx)
		if err == nil {
			connected()
			err = w.read(resp.Body)
			_ = resp.Body.Close()
		}
		if err != nil && ctx.Err() == nil {
			w.mu.Lock()
			w.fault = err
			w.mu.Unlock()
			w.wake()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
}

// open opens a stream. It waits for a platform that is unavailable.
func (w *watcher) open(ctx context.Context) (*http.Response, error) {
	token, err := w.manager.tokens.Token(ctx)
	if err != nil {
		return nil, err
	}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.manager.url+"/mm5/v1/events", nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if w.last != "" {
			req.Header.Set("Last-Event-ID", w.last)
		}
		resp, err := w.client.Do(req)
		if err == nil && resp.StatusCode == http.StatusOK {
			w.mu.Lock()
			w.streams++
			w.mu.Unlock()
			return resp, nil
		}
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable { // sent while the platform starts
				return nil, fmt.Errorf("the events were answered %s", resp.Status)
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// read receives events until the stream is interrupted.
func (w *watcher) read(stream io.Reader) error {
	var e event
	var data []byte
	for lines := bufio.NewScanner(stream); lines.Scan(); {
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch {
		case len(lines.Bytes()) == 0 && data == nil: // the end of a block without an event
			w.last, e = cmp.Or(e.id, w.last), event{}
		case len(lines.Bytes()) == 0:
			if err := json.Unmarshal(data, &e.data); err != nil {
				return err
			}
			if err := w.take(e); err != nil {
				return err
			}
			e, data = event{}, nil
		case string(field) == "id":
			e.id = string(value)
		case string(field) == "event":
			e.kind = string(value)
		case string(field) == "data":
			data = bytes.Clone(value)
		}
	}
	return nil
}

func (w *watcher) take(e event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.kind == "reset" || !later(w.last, e.id) {
		return fmt.Errorf("after the event %s came the event %s, %s", w.last, e.id, e.kind)
	}
	w.last = e.id
	w.unshown = append(w.unshown, e)
	w.wake()
	return nil
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// later reports whether an id, either REVISION-INDEX or REVISION for the whole revision, is after another one.
func later(before, id string) bool {
	place := func(id string) [2]int {
		revision, index, single := strings.Cut(id, "-")
		r, _ := strconv.Atoi(revision)
		i, _ := strconv.Atoi(index)
		if !single {
			i = 1 << 30
		}
		return [2]int{r, i}
	}
	a, b := place(before), place(id)
	return slices.Compare(a[:], b[:]) < 0
}

// sees waits until all wanted events have been received, in any order, and shows all events since its last call.
func (w *watcher) sees(ctx context.Context, s *screen, wanted ...string) {
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		fault, came := w.fault, slices.Clone(w.unshown)
		w.mu.Unlock()
		must(fault)
		missing := slices.DeleteFunc(slices.Clone(wanted), func(line string) bool {
			return slices.ContainsFunc(came, func(e event) bool { return e.String() == line })
		})
		if len(missing) == 0 {
			s.text("MEPM <- events, shortened: id, of what, whose, what", table(came))
			w.mu.Lock()
			w.unshown = w.unshown[len(came):]
			w.mu.Unlock()
			return
		}
		select {
		case <-ctx.Done():
			must(context.Cause(ctx))
		case <-deadline:
			must(fmt.Errorf("within %s there was no event\n%s\nbut\n%s", patience, strings.Join(missing, "\n"), table(came)))
		case <-w.news:
		}
	}
}

// count returns the number of streams so far.
func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.streams
}

func table(events []event) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, e := range events {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.id, e.kind, e.whose(), e.what())
	}
	must(w.Flush())
	return text.String()
}

func (e event) whose() string { return cmp.Or(names[e.data.AppInstanceID], e.data.AppInstanceID) }

// String returns the form in which events are expected.
func (e event) String() string { return e.kind + " " + e.whose() + " " + e.what() }

func (e event) what() string {
	d := &e.data
	switch e.kind {
	case "app":
		what := cmp.Or(d.Lifecycle, d.Change)
		if d.Lifecycle != "" && d.PreviousLifecycle != "" && d.PreviousLifecycle != d.Lifecycle {
			what = d.PreviousLifecycle + " -> " + what
		}
		if d.Step != "" {
			what += ", step " + d.Step
		}
		return what
	case "service":
		return d.SerName + " " + d.ChangeType + ", " + d.State
	case "rule":
		force := "not in force"
		if d.InForce {
			force = "to be in force"
		}
		return d.Kind + " " + d.RuleID + " " + d.Change + ", " + d.State + ", " + force
	case "ruleStatus":
		return fmt.Sprintf("%s applied %v, %d failed", d.Reconciler, d.Applied, len(d.Failed))
	case "operation":
		if d.Detail != "" {
			return d.LcmOperation + " " + d.OperationState + ": " + d.Detail
		}
		return d.LcmOperation + " " + d.OperationState
	}
	return "?"
}
