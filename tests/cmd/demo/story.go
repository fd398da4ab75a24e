package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// The two apps, a third one that EdgeGallery's manager configures, and the service that the first one offers.
const (
	producerID = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
	consumerID = "f81d4fae-7dec-41d0-a765-00a0c91e6bf6"
	videoID    = "0b7d2c54-91f6-4a3e-8c1d-6d2f5b8e7a90"
	location   = "location"
)

// names holds the names of the apps.
var names = map[string]string{producerID: "producer", consumerID: "consumer", videoID: "video"}

// patience is how long the story waits for an expected event.
const patience = 8 * time.Second

type story struct {
	*screen
	platform           *platform
	controller         *controller
	upstream           *upstream
	device             *device
	manager            *manager
	events             *watcher
	producer, consumer *app
}

// unexpected is the panic value that ends the story.
type unexpected struct{ error }

// must ends the story when err is not nil.
func must(err error) {
	if err != nil {
		panic(unexpected{err})
	}
}

// expect ends the story unless holds is true.
func expect(holds bool, otherwise string, args ...any) {
	if !holds {
		must(fmt.Errorf(otherwise, args...))
	}
}

// tell tells the story and returns an error when it did not go as expected.
func (s *story) tell(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			u, ok := r.(unexpected)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("in step %d: %w", s.steps, u.error)
		}
	}()
	s.begin()
	s.provision(ctx)
	s.keepStrangersOut(ctx)
	s.getTokens(ctx)
	s.beReadyTooEarly(ctx)
	s.configure(ctx)
	s.askTooEarly(ctx)
	s.becomeReady(ctx)
	s.switchRule(ctx)
	s.switchNames(ctx)
	s.manageNames(ctx)
	s.subscribe(ctx)
	first := s.register(ctx)
	s.fallSilentAndComeBack(ctx, first.Info.SerInstanceID)
	second := s.change(ctx, first.Info)
	s.crash(ctx, second)
	s.askAgain(ctx)
	s.changeTooLate(ctx, second.Info, first.ETag)
	s.trespass(ctx, second)
	s.useGateway(ctx)
	s.serveEdgeGallery(ctx)
	s.rotateSigningKey(ctx)
	s.rotateSecretKey(ctx)
	s.terminateProducer(ctx, first.Info.SerInstanceID)
	s.askTooLate(ctx)
	s.callTooLate(ctx)
	s.terminateConsumer(ctx)
	s.end()
	s.showCalls()
	s.lookBack()
	return nil
}

func (s *story) begin() {
	p := s.platform
	s.controller = newController(s.screen, producerID, consumerID, videoID)
	s.upstream = newUpstream()
	text, err := p.configure(s.controller, s.upstream)
	must(err)
	s.step("The platform starts, with an empty data directory and on free ports. It is not in development mode.")
	s.abbreviate(p.dir+"/", "")
	s.text("operator: mep.yaml", text)
	must(p.start())
	mm5 := p.running.URL("mm5")
	s.abbreviate(p.mp1()+"/mec_service_mgmt/v1", "…", p.mp1()+"/mec_app_support/v2", "…", mm5+"/mm5/v1", "…", p.dir+"/", "")
	s.note("process %d; Mp1 is at %s, Mm5 at %s, tokens are at %s, the DNS server is at %s, the gateway at %s", p.running.Pid(),
		p.mp1(), mm5, p.running.URL("auth"), p.running.URL("dns"), p.running.URL("gateway"))
	s.note("below, … stands for the root of an API, or for the rest of an id, and %s for a secret or token", hidden)
}

func (s *story) end() {
	s.step("The platform is asked to stop (SIGTERM).")
	s.events.close()
	start := time.Now()
	err := s.platform.stop()
	expect(err == nil, "the platform did not stop in good order: %v", err)
	s.note("process %d ended with status 0 after %.2f s", s.platform.running.Pid(), time.Since(start).Seconds())
}

// lookBack shows what the platform recorded and searches it for secrets.
func (s *story) lookBack() {
	s.step("What mattered is in the audit file, data/audit/audit.log. Its lines, shortened:")
	audited, err := os.ReadFile(s.platform.file("audit", "audit.log"))
	must(err)
	s.showAudit(audited)
	seen := len(s.secrets)
	expect(seen > 0, "no secret went by")
	s.expectNoSecret("the audit file", string(audited))
	s.expectNoSecret("the platform's log", s.platform.logs)
	s.expectNoSecret("what this program has shown", s.shown.String())
	s.note("none of the %d secret keys, tokens and proofs of this story is there, in the platform's log or above", seen)
	s.step("That is all; everything was as expected.")
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
		must(context.Cause(ctx))
	case <-time.After(d):
	}
}
