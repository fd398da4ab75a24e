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
	// maxRemembered is how many notifications are remembered as handled.
	maxRemembered = 4096
	// maxNotificationID bounds an X-Notification-Id; a longer one is not remembered.
	maxNotificationID = 128
)

// NotificationHandler receives service availability notifications (MEC 011 8.1.4.2): serve it at the CallbackReference of a
// subscription. It answers 204 when handle returns nil, 500 when it fails; then the platform sends the notification again.
//
// The platform delivers at least once. Of notifications with the same X-Notification-Id only one gets handled, as far as the
// last few thousand are concerned; while it is, the others are answered 503. handle may call the platform. It should return
// within the platform's time-out of 5 s.
func NotificationHandler(handle func(context.Context, mp1.ServiceAvailabilityNotification) error) http.Handler {
	return receive(mp1.NotificationTypeSerAvailability, handle,
		func(n *mp1.ServiceAvailabilityNotification) string { return n.NotificationType })
}

// TerminationHandler receives the notifications that the app is about to be stopped or terminated (MEC 011 7.1.4.2): serve it
// at the call-back reference given to SubscribeTermination. Answers and repetitions are as for NotificationHandler.
//
// handle should return soon: the platform waits for its answer for 5 s, and the context ends then. The app has
// MaxGracefulTimeout seconds in all, from the first notification on, until the platform goes on without it;
// App.ConfirmTermination with the OperationAction of the notification says that it is done earlier, from within handle or
// after it has returned.
func TerminationHandler(handle func(context.Context, mp1.AppTerminationNotification) error) http.Handler {
	return receive(mp1.NotificationTypeAppTermination, handle,
		func(n *mp1.AppTerminationNotification) string { return n.NotificationType })
}

// receive makes a handler of notifications of one type.
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

// memory knows the notifications that were handled, up to a number, and those being handled.
type memory struct {
	mu    sync.Mutex
	state map[string]bool // true: handled
	order []string        // of the handled ones; a ring once it is full
	next  int
}

// once runs handle unless that was done for the id, and returns the status to answer.
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
