package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
)

const notification = `{"notificationType":"SerAvailabilityNotification","serviceReferences":[` +
	`{"serName":"location","serInstanceId":"` + svcID + `","state":"ACTIVE","changeType":"ADDED"}],` +
	`"_links":{"subscription":{"href":"http://mep.example/s/1"}}}`

// deliver sends a notification as the platform does and returns the response status.
func deliver(h http.Handler, id, body string) int {
	r := httptest.NewRequest(http.MethodPost, "/callback", strings.NewReader(body))
	if id != "" {
		r.Header.Set("X-Notification-Id", id)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestANotificationIsHandledOnce(t *testing.T) {
	var got []mp1.ServiceAvailabilityNotification
	h := client.NotificationHandler(func(_ context.Context, n mp1.ServiceAvailabilityNotification) error {
		got = append(got, n)
		return nil
	})
	require.Equal(t, 204, deliver(h, "n-1", notification))
	require.Equal(t, mp1.ChangeAdded, got[0].ServiceReferences[0].ChangeType)
	require.Equal(t, 204, deliver(h, "n-1", notification))
	require.Len(t, got, 1)
	require.Equal(t, 204, deliver(h, "n-2", notification))
	require.Len(t, got, 2)

	for range 2 {
		require.Equal(t, 204, deliver(h, "", notification))
	}
	require.Len(t, got, 4, "without an id nothing is known of it")
}

func TestAFailedNotificationMayComeAgain(t *testing.T) {
	failure := errors.New("not now")
	h := client.NotificationHandler(func(context.Context, mp1.ServiceAvailabilityNotification) error { return failure })
	require.Equal(t, 500, deliver(h, "n-1", notification))
	failure = nil
	require.Equal(t, 204, deliver(h, "n-1", notification))
}

func TestAPanicIsAFailure(t *testing.T) {
	calls := 0
	h := client.NotificationHandler(func(context.Context, mp1.ServiceAvailabilityNotification) error {
		if calls++; calls == 1 {
			panic("oops")
		}
		return nil
	})
	require.Panics(t, func() { deliver(h, "n-1", notification) })
	require.Equal(t, 204, deliver(h, "n-1", notification))
	require.Equal(t, 2, calls)
}

func TestANotificationIsNotHandledTwiceAtATime(t *testing.T) {
	var h http.Handler
	calls := 0
	h = client.NotificationHandler(func(context.Context, mp1.ServiceAvailabilityNotification) error {
		calls++
		require.Equal(t, 503, deliver(h, "n-1", notification))
		return nil
	})
	require.Equal(t, 204, deliver(h, "n-1", notification))
	require.Equal(t, 204, deliver(h, "n-1", notification))
	require.Equal(t, 1, calls)
}

func TestTheOldestNotificationsAreForgotten(t *testing.T) {
	calls := 0
	h := client.NotificationHandler(func(context.Context, mp1.ServiceAvailabilityNotification) error { calls++; return nil })
	for i := range 10000 {
		require.Equal(t, 204, deliver(h, fmt.Sprint(i), notification))
	}
	require.Equal(t, 10000, calls)
	require.Equal(t, 204, deliver(h, "9000", notification))
	require.Equal(t, 10000, calls)
	require.Equal(t, 204, deliver(h, "0", notification))
	require.Equal(t, 10001, calls)
}

func TestWhatIsNoNotificationIsRefused(t *testing.T) {
	h := client.NotificationHandler(func(context.Context, mp1.ServiceAvailabilityNotification) error {
		t.Error("handled")
		return nil
	})
	for name, body := range map[string]string{
		"no JSON": "hello", "another type": `{"notificationType":"AppTerminationNotification"}`, "nothing": "",
		"too much": notification + strings.Repeat(" ", 1<<20),
	} {
		require.Equal(t, 400, deliver(h, "n-1", body), name)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/callback", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "POST", w.Header().Get("Allow"))
}
