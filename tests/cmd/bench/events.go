package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// receiver is a callback server that records when it was notified of each service.
type receiver struct {
	url string
	mu  sync.Mutex
	at  map[string][]time.Time // by serName
}

func newReceiver() (*receiver, func(), error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	r := &receiver{url: "http://" + ln.Addr().String(), at: make(map[string][]time.Time)}
	never := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/hear", func(w http.ResponseWriter, req *http.Request) {
		now := time.Now()
		var n struct{ ServiceReferences []struct{ SerName string } }
		if json.NewDecoder(req.Body).Decode(&n) == nil {
			r.mu.Lock()
			for _, s := range n.ServiceReferences {
				r.at[s.SerName] = append(r.at[s.SerName], now)
			}
			r.mu.Unlock()
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/never", func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-never:
		case <-req.Context().Done():
		}
	})
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }()
	return r, func() { close(never); _ = srv.Close() }, nil
}

func subscribe(p *process.Process, callback, name string) error {
	body := fmt.Sprintf(`{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":%q,"filteringCriteria":{"serNames":[%q]}}`, callback, name)
	_, err := post(p.URL("mp1")+apiRoot+"/applications/"+uuid.NewString()+"/subscriptions", []byte(body))
	return err
}

// benchNotify measures the time from the response to a registration until its subscribers have received the notification.
func benchNotify(o *options) error {
	const total, matching, registrations = 1000, 10, 300
	p, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer p.Kill()
	r, stop, err := newReceiver()
	if err != nil {
		return err
	}
	defer stop()
	// The registrations share 100 names, and each of the ten matching subscribers lists all of them.
	names := make([]string, registrations)
	for i := range names {
		names[i] = fmt.Sprintf("wanted-%d", i%100)
	}
	for i := range total {
		if i < matching {
			if err := subscribeAll(p, r.url+"/hear", names[:100]); err != nil {
				return err
			}
			continue
		}
		if err := subscribe(p, r.url+"/hear", fmt.Sprintf("unwanted-%d", i)); err != nil {
			return err
		}
	}
	round := func(what string) error {
		var delays []time.Duration
		app := uuid.NewString()
		for i := range registrations {
			name := names[i]
			r.mu.Lock()
			r.at[name] = nil
			r.mu.Unlock()
			if _, err := post(servicesURL(p, app), serviceBody(name, 0)); err != nil {
				return err
			}
			answered := time.Now()
			for deadline := answered.Add(10 * time.Second); ; {
				r.mu.Lock()
				heard := r.at[name]
				r.mu.Unlock()
				if len(heard) >= matching {
					for _, at := range heard {
						delays = append(delays, max(0, at.Sub(answered)))
					}
					break
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("%d of %d notifications of %s", len(heard), matching, name)
				}
				time.Sleep(200 * time.Microsecond)
			}
		}
		report("%s: p50 %.2f ms, p99 %.2f ms (targets 5 and 25), %d notifications", what,
			percentile(delays, .5).Seconds()*1e3, percentile(delays, .99).Seconds()*1e3, len(delays))
		return nil
	}
	if err := round("201 answered to notification received, 1,000 subscriptions, 10 match"); err != nil {
		return err
	}
	if err := subscribeAll(p, r.url+"/never", names[:100]); err != nil {
		return err
	}
	return round("the same with one more subscriber that never answers")
}

func subscribeAll(p *process.Process, callback string, names []string) error {
	list, err := json.Marshal(names)
	if err != nil {
		return err
	}
	body := fmt.Sprintf(`{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":%q,"filteringCriteria":{"serNames":%s}}`, callback, list)
	_, err = post(p.URL("mp1")+apiRoot+"/applications/"+uuid.NewString()+"/subscriptions", []byte(body))
	return err
}
