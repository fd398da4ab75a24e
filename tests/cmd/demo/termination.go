package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

// The time that the apps are given to end.
const (
	longGrace  = 20 * time.Second
	shortGrace = 3 * time.Second
)

// terminateProducer terminates an app that confirms when it is done.
func (s *story) terminateProducer(ctx context.Context, serInstanceID string) {
	s.step("The MEPM terminates the producer, and gives it %s to finish its work. The producer hears of it.", longGrace)
	token, err := s.producer.tokens.Token(ctx)
	must(err)
	operation := s.manager.terminate(ctx, producerID, longGrace)
	s.producer.isTold(ctx, longGrace)
	op := s.manager.look(ctx, operation, mm5.OperationProcessing)
	expect(op.Step != "", "nobody knows what the operation waits for")

	s.step("It is done at once, and says so. Its rules go first, then its service, and the consumer hears of that.")
	start := time.Now()
	s.producer.support.call(ctx, request{
		method: http.MethodPost, path: "/confirm_termination", body: mp1.AppTerminationConfirmation{OperationAction: mp1.ActionTerminating},
	}, http.StatusNoContent, nil)
	s.controller.hears(ctx, producerID)
	s.consumer.hears(ctx, serInstanceID, mp1.ChangeRemoved, mp1.StateActive)
	s.events.sees(ctx, s.screen, "app producer TERMINATING, step RULES", "app producer TERMINATING, step CREDENTIALS", "app producer REMOVED",
		"service producer location REMOVED, ACTIVE", "operation producer TERMINATE COMPLETED")
	expect(time.Since(start) < longGrace/2, "the termination of the producer took %s", time.Since(start))
	op = s.manager.look(ctx, operation, mm5.OperationCompleted)
	expect(op.Detail == "", "the termination of the producer was completed, but %s", op.Detail)
	s.consumer.finds(ctx, location)

	s.step("The token the producer still has is refused, and it gets no other.")
	s.barred(ctx, s.producer, token)
}

// terminateConsumer terminates an app that does not respond; the platform crashes meanwhile.
func (s *story) terminateConsumer(ctx context.Context) {
	p := s.platform
	s.step("The MEPM terminates the consumer, too, and gives it %s. The consumer hears of it, and does not answer.", shortGrace)
	token, err := s.consumer.tokens.Token(ctx)
	must(err)
	start := time.Now()
	operation := s.manager.terminate(ctx, consumerID, shortGrace)
	first := s.consumer.isTold(ctx, shortGrace)

	s.step("While it waits for the consumer the platform is killed (kill -9 %d) and started again.", p.running.Pid())
	pause(ctx, 1200*time.Millisecond)
	s.restart()
	s.manager.look(ctx, operation, mm5.OperationProcessing)
	s.controller.hears(ctx, consumerID, consumerRule)

	s.step("It goes on where it was. The consumer is told again, in case it was not, with what is left of its time.")
	again := s.consumer.isTold(ctx, shortGrace-time.Second)
	expect(again.id == first.id, "the notice %s was sent again as %s", first.id, again.id)

	s.step("When the %s are over, the platform waits no longer.", shortGrace)
	s.controller.hears(ctx, consumerID)
	s.events.sees(ctx, s.screen, "operation consumer TERMINATE PROCESSING", "app consumer STARTED -> TERMINATING, step NOTICE",
		"app consumer TERMINATING, step RULES", "app consumer TERMINATING, step CREDENTIALS", "app consumer REMOVED",
		"operation consumer TERMINATE COMPLETED: the app did not confirm within 3 s")
	took := time.Since(start)
	s.note("that was %.1f s after it began; the MEPM followed the events over %d streams, and missed none", took.Seconds(), s.events.count())
	expect(took > shortGrace && took < shortGrace+4*time.Second, "the termination of the consumer took %s, want %s and a little", took, shortGrace)
	op := s.manager.look(ctx, operation, mm5.OperationCompleted)
	expect(strings.Contains(op.Detail, "did not confirm"), "the termination of the consumer was completed: %q", op.Detail)

	s.step("Its token is refused, too. Nothing of the two apps is left.")
	s.barred(ctx, s.consumer, token)
	var left []mm5.AppInstance
	s.manager.call(ctx, request{method: http.MethodGet, path: "/mm5/v1/app_instances"}, http.StatusOK, &left)
	expect(len(left) == 0, "there are still %d app instances", len(left))
	s.heardAll()
}

// barred expects an app's old token to be refused, and the app to get no new one.
func (s *story) barred(ctx context.Context, a *app, token string) {
	_, err := a.platform.Discover(ctx, client.Query{Names: []string{location}})
	why := denied(err, http.StatusUnauthorized)
	expect(strings.Contains(why, "revoked"), "the platform refuses the token because %s", why)
	a.tokens.Invalidate(token)
	_, err = a.tokens.Token(ctx)
	code := refused(err, http.StatusUnauthorized)
	expect(code == auth.CodeInvalidClient, "asking for a token led to %v", err)
}

// heardAll expects nobody to have received anything that the story has not shown.
func (s *story) heardAll() {
	s.controller.heardAll()
	for _, a := range []*app{s.producer, s.consumer} {
		expect(len(a.heard) == 0 && len(a.notices) == 0, "the %s heard %d things too many", a.name, len(a.heard)+len(a.notices))
	}
}
