package main

import (
	"context"
	"time"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mp1"
)

func (s *story) subscribe(ctx context.Context) {
	s.step("The consumer wants to hear of every service named %q. There is none yet.", location)
	s.consumer.subscribe(ctx, location)
	s.consumer.finds(ctx, location)

	s.step("The producer wants to hear only when the platform takes its service for dead.")
	s.producer.subscribe(ctx, location, mp1.StateSuspended)
}

func (s *story) register(ctx context.Context) *client.Service {
	s.step("The producer registers the service, with a heartbeat every second. The consumer hears of it.")
	uri, interval := s.producer.url+"/location/v2", 1
	svc, err := s.producer.Register(ctx, mp1.ServiceInfo{
		SerName: location, Version: "2.1.1", State: mp1.StateActive, Serializer: mp1.SerializerJSON,
		TransportInfo: &mp1.TransportInfo{
			ID: "rest", Name: "REST", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "2.0",
			Endpoint: &mp1.EndPointInfo{URIs: []string{uri}}, Security: &mp1.SecurityInfo{},
		},
		LivenessInterval: &interval,
	})
	must(err)
	got := svc.Info.LivenessInterval
	expect(got != nil && *got == interval, "the platform did not take the livenessInterval %d", interval)
	s.consumer.hears(ctx, svc.Info.SerInstanceID, mp1.ChangeAdded, mp1.StateActive)

	s.step("The consumer looks the service up by name and learns where it is.")
	at := s.consumer.finds(ctx, location, svc.Info.SerInstanceID)[0].TransportInfo.Endpoint.URIs
	expect(len(at) == 1 && at[0] == uri, "the service is at %v, want %s", at, uri)
	s.askForService(ctx, svc.Info.SerInstanceID)
	return svc
}

func (s *story) fallSilentAndComeBack(ctx context.Context, id string) {
	s.step("The producer sends heartbeats for a while, then falls silent.")
	for range 3 {
		pause(ctx, 700*time.Millisecond)
		_, err := s.producer.Heartbeat(ctx, id)
		must(err)
	}
	last := time.Now()

	s.step("After the interval and a second of grace the platform suspends the service. Discovery no longer lists it.")
	s.consumer.hears(ctx, id, mp1.ChangeState, mp1.StateSuspended)
	s.producer.hears(ctx, id, mp1.ChangeState, mp1.StateSuspended)
	silence := time.Since(last)
	s.note("%.1f s after the last heartbeat", silence.Seconds())
	expect(silence > 1900*time.Millisecond && silence < 4*time.Second, "that was %s after the last heartbeat, want about 2 s", silence)
	s.consumer.finds(ctx, location)

	s.step("One heartbeat brings it back.")
	_, err := s.producer.Heartbeat(ctx, id)
	must(err)
	s.consumer.hears(ctx, id, mp1.ChangeState, mp1.StateActive)
}

func (s *story) change(ctx context.Context, info mp1.ServiceInfo) *client.Service {
	s.step("The producer replaces the description: a new version, and from now on a heartbeat every minute.")
	interval := 60
	info.Version, info.LivenessInterval, info.IsLocal, info.Links = "2.2.1", &interval, nil, nil
	svc, err := s.producer.Replace(ctx, info.SerInstanceID, info)
	must(err)
	s.consumer.hears(ctx, info.SerInstanceID, mp1.ChangeAttributes, mp1.StateActive)
	return svc
}

func (s *story) crash(ctx context.Context, want *client.Service) {
	s.step("The platform is killed (kill -9 %d) and started again on the same data and ports. It tells the controller everything again.",
		s.platform.running.Pid())
	before, err := s.consumer.tokens.Token(ctx)
	must(err)
	s.restart()
	s.controller.hears(ctx, producerID, usersRule)
	s.controller.hears(ctx, consumerID, consumerRule)

	s.step("The service is still there, as it was, and the tokens issued before the crash are as good as they were.")
	svc, err := s.consumer.platform.Service(ctx, want.Info.SerInstanceID)
	must(err)
	after, err := s.consumer.tokens.Token(ctx)
	must(err)
	expect(before == after, "the consumer had to get another token")
	expect(svc.ETag == want.ETag && svc.Info.Version == want.Info.Version && svc.Info.State == want.Info.State,
		"before the crash it was %+v, now it is %+v", want, svc)
}

func (s *story) changeTooLate(ctx context.Context, info mp1.ServiceInfo, staleETag string) {
	s.step("A change that rests on what the producer read at first is refused: the service has changed since.")
	info.Version, info.IsLocal, info.Links = "3.1.1", nil, nil
	_, err := s.producer.Replace(ctx, info.SerInstanceID, info, client.IfMatch(staleETag))
	expect(client.IsPreconditionFailed(err), "a stale If-Match led to %v, want a problem with status 412", err)
}

// restart kills the platform as kill -9 does and restarts it.
func (s *story) restart() {
	p := s.platform
	url, start := p.mp1(), time.Now()
	p.kill()
	must(p.start())
	s.note("process %d was ready after %.1f s", p.running.Pid(), time.Since(start).Seconds())
	expect(p.mp1() == url, "Mp1 is at %s now, want %s", p.mp1(), url)
}
