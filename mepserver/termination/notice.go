package termination

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/mepserver/callback"
)

// Notice announces a stop or termination to the subscribers of an app instance.
type Notice struct {
	AppInstanceID string
	// ID identifies the occasion. The same occasion is sent under the same notification id, by other processes too.
	ID     string
	Action mp1.OperationAction
	// Until is when the wait for the app ends.
	Until time.Time
}

// Delivery is the state of the delivery to a subscriber.
type Delivery struct {
	SubscriptionID, AppInstanceID, CallbackReference string
	// Pending is true until the subscriber accepts the notice or answers 410 Gone.
	Pending      bool
	FailingSince time.Time
	LastError    string
}

// Teller delivers notices to subscribers.
type Teller struct {
	book   *Book
	client *callback.Client
	base   func() string
	log    *slog.Logger
	sent   *prometheus.CounterVec

	mu         sync.Mutex
	deliveries map[string]Delivery // by subscription id
}

// NewTeller returns a teller; base returns the base of the hrefs in notifications.
func NewTeller(book *Book, client *callback.Client, base func() string, log *slog.Logger, reg prometheus.Registerer) *Teller {
	t := &Teller{
		book: book, client: client, base: base, log: log, deliveries: make(map[string]Delivery),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_termination_notices_total", Help: "Attempts to tell a subscriber that its app is stopped or terminated, by result.",
		}, []string{"result"}),
	}
	if reg != nil {
		reg.MustRegister(t.sent)
	}
	return t
}

// Bounds on the backoff between attempts, shorter than for other notifications because an app has little time.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Tell delivers the notice to all subscribers of the app. It retries each until the subscriber accepts the notice or
// answers 410 Gone, or ctx ends, and returns when all are done.
func (t *Teller) Tell(ctx context.Context, n Notice) {
	var all sync.WaitGroup
	for item := range t.book.Of(n.AppInstanceID) {
		sub := item.Value
		all.Go(func() { t.tell(ctx, n, sub) })
	}
	all.Wait()
	t.forget(n.AppInstanceID)
}

func (t *Teller) tell(ctx context.Context, n Notice, sub *Subscription) {
	d := Delivery{SubscriptionID: sub.ID, AppInstanceID: sub.AppInstanceID, CallbackReference: sub.Record.CallbackReference, Pending: true}
	t.note(d)
	wait := firstBackoff
	for {
		err := t.post(ctx, n, sub)
		if err == nil {
			t.sent.WithLabelValues("ok").Inc()
			d.Pending, d.FailingSince, d.LastError = false, time.Time{}, ""
			t.note(d)
			return
		}
		if ctx.Err() != nil {
			return
		}
		t.sent.WithLabelValues("failed").Inc()
		if d.FailingSince.IsZero() {
			d.FailingSince = time.Now().UTC()
			t.log.Warn("subscriber does not take the termination notice, trying again", "app", n.AppInstanceID, "subscription", sub.ID, "error", err)
		}
		d.LastError = err.Error()
		if status, ok := errors.AsType[*callback.StatusError](err); ok && status.Status == http.StatusGone {
			d.Pending = false
		}
		t.note(d)
		if !d.Pending {
			return
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
			wait = min(2*wait, maxBackoff)
		case <-ctx.Done():
			return
		}
	}
}

func (t *Teller) post(ctx context.Context, n Notice, sub *Subscription) error {
	base := t.base() + APIRoot
	body, err := json.Marshal(mp1.AppTerminationNotification{
		NotificationType:   mp1.NotificationTypeAppTermination,
		OperationAction:    n.Action,
		MaxGracefulTimeout: uint32(min(math.MaxUint32, max(1, math.Ceil(time.Until(n.Until).Seconds())))),
		Links: mp1.TerminationLinks{
			Subscription:       mp1.LinkType{Href: base + sub.Path()},
			ConfirmTermination: &mp1.LinkType{Href: base + "/applications/" + n.AppInstanceID + "/confirm_termination"},
		},
	})
	if err != nil {
		return err
	}
	space, err := uuid.Parse(sub.ID)
	if err != nil {
		space = uuid.NameSpaceOID
	}
	return t.client.Post(ctx, sub.Record.CallbackReference, uuid.NewSHA1(space, []byte(n.ID)).String(), body)
}

func (t *Teller) note(d Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deliveries[d.SubscriptionID] = d
}

// forget drops the deliveries to an app instance.
func (t *Teller) forget(appInstanceID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, d := range t.deliveries {
		if d.AppInstanceID == appInstanceID {
			delete(t.deliveries, id)
		}
	}
}

// Delivery returns the state of a delivery while Tell is running, and false when there is none.
func (t *Teller) Delivery(subscriptionID string) (Delivery, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, ok := t.deliveries[subscriptionID]
	return d, ok
}
