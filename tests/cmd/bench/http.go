package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/openmep/mep/tests/process"
)

// benchRegister compares registrations with raw puts of the same size into etcd over gRPC on loopback. Both start empty every
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
		rate, err := drive(o.round, func(w, n int) error {
			_, err := post(servicesURL(p, apps[(w*4+n%4)]), serviceBody(fmt.Sprintf("svc-%d-%d", w, n), 0))
			return err
		})
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

func rawPuts(o *options, conns int) (float64, error) {
	addr, stop, err := startYardstick("yardstick-etcd", filepath.Join(o.dir, uuid.NewString()))
	if err != nil {
		return 0, err
	}
	defer stop()
	cs := make([]*clientv3.Client, conns)
	for i := range cs {
		if cs[i], err = clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()}); err != nil {
			return 0, err
		}
		defer cs[i].Close()
	}
	return drive(o.round, func(w, n int) error {
		value := serviceBody(fmt.Sprintf("svc-%d-%d", w, n), 0)
		_, err := cs[w%conns].Put(context.Background(), "/bench/"+uuid.NewString(), string(value))
		return err
	})
}

// alternate measures two URLs in turn.
func alternate(o *options, a, b string, size int) (ours, theirs []float64, err error) {
	for range o.rounds {
		for _, side := range []struct {
			url  string
			list *[]float64
		}{{a, &ours}, {b, &theirs}} {
			rate, err := drive(o.round, func(int, int) error { return get(side.url, size) })
			if err != nil {
				return nil, nil, err
			}
			*side.list = append(*side.list, rate)
		}
	}
	return ours, theirs, nil
}

// againstBare compares a discovery with a bare gin handler that writes the same bytes.
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
	addr, stop, err := startYardstick("yardstick-http", file)
	if err != nil {
		return err
	}
	defer stop()
	ours, theirs, err := alternate(o, target1, "http://"+addr+apiRoot+"/services"+query, len(body))
	if err != nil {
		return err
	}
	compare(fmt.Sprintf("%s (%d bytes)", what, len(body)), "req/s", ours, theirs, target)
	return nil
}

func benchDiscover(o *options) error {
	p, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer p.Kill()
	if _, err := preload(p, 10_000, 0); err != nil {
		return err
	}
	return againstBare(o, p, "?ser_name=svc-7777", "GET /services?ser_name= among 10,000", 0.85)
}

func benchList(o *options) error {
	p, _, err := startPlatform(o)
	if err != nil {
		return err
	}
	defer p.Kill()
	if _, err := preload(p, 1000, 0); err != nil {
		return err
	}
	return againstBare(o, p, "", "GET /services, 1,000 services", 0.8)
}

// benchScale compares the same discovery among few and many services.
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
	ours, theirs, err := alternate(o, many.URL("mp1")+query, few.URL("mp1")+query, 0)
	if err != nil {
		return err
	}
	compare("GET /services?ser_name= among 100,000, yardstick: among 100", "req/s", ours, theirs, 0.85)
	rss, err := many.ResidentBytes()
	if err != nil {
		return err
	}
	report("resident memory with 100,000 services: %d MB", rss>>20)
	return nil
}
