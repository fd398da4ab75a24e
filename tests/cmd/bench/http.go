package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// benchRegister compares registrations with raw etcd puts of the same size over gRPC on loopback. Both start empty in every
// round.
func benchRegister(o *options) error {
	var ours, shared, own []float64
	for range o.rounds {
		p, _, err := startPlatform(o)
		if err != nil {
			return err
		}
		apps := make([]string, 4*clients)
		for i := range apps {
			apps[i] = uuid.NewString()
		}
		conns := newWires()
		addr := hostOf(p.URL("mp1"))
		rate, err := drive(o.round, func(w, n int) error {
			path := apiRoot + "/applications/" + apps[w*4+n%4] + "/services"
			return conns.ask(w, addr, http.MethodPost, path, serviceBody(fmt.Sprintf("svc-%d-%d", w, n), 0), http.StatusCreated)
		})
		conns.close()
		p.Kill()
		if err != nil {
			return err
		}
		ours = append(ours, rate)
		for list, conns := range map[*[]float64]int{&shared: 1, &own: clients} {
			if rate, err = rawPuts(o, conns); err != nil {
				return err
			}
			*list = append(*list, rate)
		}
	}
	compare("registrations, 64 clients, etcd clients share a connection", "/s", ours, shared, 0.5)
	compare("registrations, 64 clients, a connection for each", "/s", ours, own, 0.5)
	return nil
}

const jsonHeader = "Content-Type: application/json\r\n"

func rawPuts(o *options, conns int) (float64, error) {
	e, err := startEtcd(o, conns)
	if err != nil {
		return 0, err
	}
	defer e.stop()
	return drive(o.round, func(w, n int) error {
		value := serviceBody(fmt.Sprintf("svc-%d-%d", w, n), 0)
		_, err := e.of(w).Put(context.Background(), "/bench/"+uuid.NewString(), string(value))
		return err
	})
}

// figures holds the results of a server, one for each round.
type figures struct {
	pid   int
	rates []float64
	// micros holds the processor time of the server per request.
	micros []float64
}

// take adds the results of one round of work.
func (f *figures) take(o *options, work func(worker, n int) error) error {
	return f.takeOf(func() (int, float64, error) {
		took, rate, err := timed(clients, o.round, work)
		return len(took), rate, err
	})
}

// takeOf adds the results of work that returns its number of repetitions, in total and per second.
func (f *figures) takeOf(work func() (count int, rate float64, err error)) error {
	before, err := cpuOf(f.pid)
	if err != nil {
		return err
	}
	count, rate, err := work()
	if err != nil {
		return err
	}
	after, err := cpuOf(f.pid)
	f.rates = append(f.rates, rate)
	f.micros = append(f.micros, (after-before).Seconds()*1e6/float64(count))
	return err
}

// side is one of two servers to compare.
type side struct {
	figures
	url string
	// header is sent with every request, as complete lines with CRLF. Go's HTTP client does not send it.
	header string
}

// alternate measures the same GET on both sides in turn; size is the length of the response body, 0 if it may vary.
func alternate(o *options, size int, sides ...*side) error {
	conns := newWires()
	defer conns.close()
	for range o.rounds {
		for _, s := range sides {
			err := s.take(o, func(w, _ int) error {
				status, n, err := o.get(conns, w, s.url, s.header)
				if err == nil && (status != http.StatusOK || size > 0 && n != size) {
					err = fmt.Errorf("GET %s: status %d, %d bytes, want %d", s.url, status, n, size)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// get sends a GET with the bench's own client, or with Go's client if goClient is set.
func (o *options) get(conns *wires, worker int, url, header string) (status, length int, err error) {
	if !o.goClient {
		addr := hostOf(url)
		c, err := conns.of(worker, addr)
		if err != nil {
			return 0, 0, err
		}
		return c.do(http.MethodGet, strings.TrimPrefix(url, "http://"+addr), header, nil)
	}
	resp, err := client.Get(url)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, int(n), err
}

func compareSides(what string, ours, theirs *side, target float64) {
	compareFigures(what, "request", &ours.figures, &theirs.figures, target)
}

// compareFigures compares the rates of two servers.
func compareFigures(what, thing string, ours, theirs *figures, target float64) {
	compare(what, thing+"s/s", ours.rates, theirs.rates, target)
	report("  processor time of the server for each %s: ours %.1f µs, yardstick %.1f µs", thing, median(ours.micros), median(theirs.micros))
}

func hostOf(rawURL string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(rawURL, "http://"), "/")
	return host
}

// againstBare compares discovery with a bare gin handler that writes the same bytes.
func againstBare(o *options, p *process.Process, query, what string, target float64) error {
	target1 := p.URL("mp1") + apiRoot + "/services" + query
	resp, err := client.Get(target1)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %d %w", target1, resp.StatusCode, err)
	}
	file := filepath.Join(o.dir, uuid.NewString())
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return err
	}
	addr, pid, stop, err := startYardstick("yardstick-http", file)
	if err != nil {
		return err
	}
	defer stop()
	ours := &side{figures{pid: p.Pid()}, target1, ""}
	theirs := &side{figures{pid: pid}, "http://" + addr + apiRoot + "/services" + query, ""}
	if err := alternate(o, len(body), ours, theirs); err != nil {
		return err
	}
	compareSides(fmt.Sprintf("%s (%d bytes)", what, len(body)), ours, theirs, target)
	return nil
}

func benchDiscover(o *options) error {
	p, _, err := startLoaded(o, 10_000, 0)
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := againstBare(o, p, "?ser_name=svc-7777", "GET /services?ser_name= among 10,000", 0.85); err != nil {
		return err
	}
	withGo := *o
	withGo.goClient = true
	return againstBare(&withGo, p, "?ser_name=svc-7777", "the same asked with Go's HTTP client", 0.85)
}

func benchList(o *options) error {
	p, _, err := startLoaded(o, 1000, 0)
	if err != nil {
		return err
	}
	defer p.Kill()
	return againstBare(o, p, "", "GET /services, 1,000 services", 0.8)
}

// benchScale compares the same discovery with few and with many services.
func benchScale(o *options) error {
	few, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer few.Kill()
	many, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer many.Kill()
	if _, err := preload(few, 100, 0); err != nil {
		return err
	}
	start := time.Now()
	if _, err := preload(many, 100_000, 0); err != nil {
		return err
	}
	report("100,000 services registered in %.1f s", time.Since(start).Seconds())
	query := apiRoot + "/services?ser_name=svc-77"
	a, b := &side{figures{pid: many.Pid()}, many.URL("mp1") + query, ""}, &side{figures{pid: few.Pid()}, few.URL("mp1") + query, ""}
	if err := alternate(o, 0, a, b); err != nil {
		return err
	}
	compareSides("GET /services?ser_name= among 100,000, yardstick: among 100", a, b, 0.85)
	rss, err := many.ResidentBytes()
	if err != nil {
		return err
	}
	report("resident memory with 100,000 services: %d MB", rss>>20)
	return nil
}
