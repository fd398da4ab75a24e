package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"github.com/openmep/mep/api/mp1"
)

const (
	// maxNotification bounds the body of a notification.
	maxNotification = 1 << 20
	// maxRemembered is the number of handled notifications whose ids are remembered.
	maxRemembered = 4096
	// maxNotificationID bounds an X-Notification-Id; a longer one is not remembered.
	maxNotificationID = 128
)

// NotificationHandler returns a handler that receives service availability notifications (MEC 011 8.1.4.2). Serve it at the
// CallbackReference of a subscription. It answers 204 when handle returns nil and 500 when handle returns an error; the
// platform then sends the notification again.
//
// The platform delivers at least once. The handler remembers the X-Notification-Id of the last few thousand handled
// notifications and does not pass them to handle again; while handle is running, duplicates are answered 503. handle may call
// the platform. It should return within the platform's time-out of 5 s.
func NotificationHandler(handle func(context.Context, mp1.ServiceAvailabilityNotification) error) http.Handler {
	return receive(mp1.NotificationTypeSerAvailability, handle,
		func(n *mp1.ServiceAvailabilityNotification) string { return n.NotificationType })
}

// TerminationHandler returns a handler for notifications that the app is about to be stopped or terminated (MEC 011 7.1.4.2).
// Serve it at the callback reference given to SubscribeTermination. Responses and duplicates are treated as in
// NotificationHandler.
//
// handle should return quickly: the platform waits 5 s for the response, and the context ends then. From the first notification
// on, the app has MaxGracefulTimeout seconds in total before the platform proceeds without it. App.ConfirmTermination with the
// OperationAction of the notification ends that wait early; it may be called from within handle or later.
func TerminationHandler(handle func(context.Context, mp1.AppTerminationNotification) error) http.Handler {
	return receive(mp1.NotificationTypeAppTermination, handle,
		func(n *mp1.AppTerminationNotification) string { return n.NotificationType })
}

// receive returns a handler for notifications of one type.
func receive[N any](want string, handle func(context.Context, N) error, typeOf func(*N) string) http.Handler {
	seen := &memory{state: make(map[string]bool)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		var n N
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNotification))
		if err != nil || json.Unmarshal(body, &n) != nil || typeOf(&n) != want {
			http.Error(w, "expected a "+want, http.StatusBadRequest)
			return
		}
		w.WriteHeader(seen.once(r.Header.Get("X-Notification-Id"), func() error { return handle(r.Context(), n) }))
	})
}

// memory tracks the notifications in progress and a bounded number of handled ones.
type memory struct {
	mu    sync.Mutex
	state map[string]bool // true: handled
	order []string        // handled ids; a ring buffer once it is full
	next  int
}

// once runs handle unless the id is known, and returns the status to answer.
func (m *memory) once(id string, handle func() error) int {
	remember := id != "" && len(id) <= maxNotificationID
	if remember {
		handled, known := m.begin(id)
		switch {
		case handled:
			return http.StatusNoContent
		case known:
			return http.StatusServiceUnavailable
		}
	}
	done := false
	defer func() { // also when handle panics
		if remember {
			m.end(id, done)
		}
	}()
	if err := handle(); err != nil {
		return http.StatusInternalServerError
	}
	done = true
	return http.StatusNoContent
}

func (m *memory) begin(id string) (handled, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	handled, known = m.state[id]
	if !known {
		m.state[id] = false
	}
	return handled, known
}

func (m *memory) end(id string, handled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !handled {
		delete(m.state, id)
		return
	}
	m.state[id] = true
	if len(m.order) < maxRemembered {
		m.order = append(m.order, id)
		return
	}
	delete(m.state, m.order[m.next])
	m.order[m.next] = id
	m.next = (m.next + 1) % maxRemembered
}
