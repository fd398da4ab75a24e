package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// clients is the number of requests in flight at a time.
const clients = 64

func newHTTPClient() *http.Client {
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 2048, MaxIdleConnsPerHost: 2048, DisableCompression: true},
	}
}

var client = newHTTPClient()

// timed lets workers repeat work for d. It returns the duration of each repetition and the number of repetitions per second.
func timed(workers int, d time.Duration, work func(worker, n int) error) (took []time.Duration, rate float64, err error) {
	all := make([][]time.Duration, workers)
	faults := make([]error, workers)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			var mine []time.Duration
			for begin := start; begin.Sub(start) < d && faults[w] == nil; {
				faults[w] = work(w, len(mine))
				end := time.Now()
				mine = append(mine, end.Sub(begin))
				begin = end
			}
			all[w] = mine
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	took = slices.Concat(all...)
	return took, float64(len(took)) / elapsed.Seconds(), errors.Join(faults...)
}

// drive lets all clients repeat work for d and returns the number of repetitions per second.
func drive(d time.Duration, work func(worker, n int) error) (float64, error) {
	_, rate, err := timed(clients, d, work)
	return rate, err
}

// share distributes a number of pieces of work among workers and returns the number of pieces per second.
func share(workers, pieces int, work func(worker, piece int) error) (rate float64, err error) {
	faults := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			for faults[w] == nil {
				piece := int(next.Add(1)) - 1
				if piece >= pieces {
					return
				}
				faults[w] = work(w, piece)
			}
		})
	}
	wg.Wait()
	return float64(pieces) / time.Since(start).Seconds(), errors.Join(faults...)
}

func post(url string, body []byte) ([]byte, error) {
	resp, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("POST %s: %d %s", url, resp.StatusCode, answer)
	}
	return answer, err
}

// serviceBody returns a ServiceInfo of about 700 bytes.
func serviceBody(name string, interval int) []byte {
	heartbeat := ""
	if interval > 0 {
		heartbeat = fmt.Sprintf(`"livenessInterval":%d,`, interval)
	}
	return fmt.Appendf(nil, `{"serName":%q,"serCategory":{"href":"/catalogue/location","id":"location-1","name":"Location","version":"v2"},`+
		`"version":"2.2.1","state":"ACTIVE",%s"transportInfo":{"id":"rest-location","name":"REST","description":"REST API of the location service, JSON over HTTP",`+
		`"type":"REST_HTTP","protocol":"HTTP","version":"2.0","endpoint":{"uris":["http://10.20.30.40:8080/location/v2"]},`+
		`"security":{"oAuth2Info":{"grantTypes":["OAUTH2_CLIENT_CREDENTIALS"],"tokenEndpoint":"https://10.20.30.40:8443/oauth2/token"}},`+
		`"implSpecificInfo":{"region":"eu-central","rack":"r-17","note":"filled up to the size of a usual registration"}},`+
		`"serializer":"JSON","scopeOfLocality":"MEC_HOST","consumedLocalOnly":true}`, name, heartbeat)
}

const apiRoot = "/mec_service_mgmt/v1"

func servicesURL(p *process.Process, app string) string {
	return p.URL("mp1") + apiRoot + "/applications/" + app + "/services"
}

// startPlatform starts the platform with a new data directory. Requests are logged as in production, to a file.
func startPlatform(o *options, args ...string) (*process.Process, string, error) {
	dir := filepath.Join(o.dir, uuid.NewString())
	p, err := process.Start(o.mep, o.dir, append([]string{"--data-dir", dir}, args...)...)
	if err == nil && o.profiles != "" {
		go profile(p.URL("ops"), o.profiles)
	}
	return p, dir, err
}

type registered struct{ app, id string }

// preload registers services named svc-0, svc-1, …, 500 to an app.
func preload(p *process.Process, count, interval int) ([]registered, error) {
	all := make([]registered, count)
	apps := make([]string, count/500+1)
	for i := range apps {
		apps[i] = uuid.NewString()
	}
	_, err := share(clients, count, func(_, i int) error {
		app := apps[i/500]
		answer, err := post(servicesURL(p, app), serviceBody(fmt.Sprintf("svc-%d", i), interval))
		var s struct{ SerInstanceID string }
		if err == nil {
			err = json.Unmarshal(answer, &s)
		}
		all[i] = registered{app, s.SerInstanceID}
		return err
	})
	return all, err
}

// startLoaded starts the platform and registers services with preload.
func startLoaded(o *options, count, interval int) (*process.Process, []registered, error) {
	p, _, err := startPlatform(o)
	if err != nil {
		return nil, nil, err
	}
	all, err := preload(p, count, interval)
	if err != nil {
		p.Kill()
		return nil, nil, err
	}
	return p, all, nil
}
