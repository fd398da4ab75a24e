package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// rotateSigningKey makes the operator replace the token signing key while both apps are working.
func (s *story) rotateSigningKey(ctx context.Context) {
	s.step("While both apps keep calling, the operator has the key replaced that signs tokens.")
	old := s.listKeys(ctx, "signing")[0]
	producer, consumer := newTraffic(s.producer), newTraffic(s.consumer)
	producer.start(ctx, producer.sameToken)
	defer producer.stop()
	consumer.start(ctx, consumer.newTokens())
	defer consumer.stop()
	consumer.waitFor(ctx, old)

	printed := s.mep(ctx, "keys", "rotate")
	next := s.listKeys(ctx, "signing", "published")[1]
	expect(strings.Contains(printed, next), "the command said nothing of the key %s", next)

	s.step("Since everybody could read the new key before it signs, nobody notices the change.")
	consumer.waitFor(ctx, next)
	pause(ctx, 500*time.Millisecond)
	producer.stop()
	consumer.stop()
	must(errors.Join(producer.fault, consumer.fault))
	s.listKeys(ctx, "verifying", "signing")
	kids := consumer.signedWith()
	expect(slices.Equal(slices.Compact(slices.Clone(kids)), []string{old, next}), "the tokens were signed with %v", kids)
	s.note("meanwhile the producer made %d requests with the token it had, the consumer %d with %d tokens; none failed",
		producer.requests.Load(), consumer.requests.Load(), len(kids))

	s.step("The producer, too, has its next token signed with the new key.")
	c := s.newToken(ctx, s.producer)
	expect(c.KeyID == next, "the token is signed with %s, want %s", c.KeyID, next)
}

// mep runs a command of the platform as the operator does, and shows it.
func (s *story) mep(ctx context.Context, words ...string) string {
	printed, err := s.platform.command(ctx, words...)
	must(err)
	s.text("operator $ mep "+strings.Join(words, " ")+" --config mep.yaml", printed)
	return printed
}

// listKeys expects the signing keys to be in the given states, and returns their ids.
func (s *story) listKeys(ctx context.Context, states ...string) (kids []string) {
	lines := strings.Split(strings.TrimSpace(s.mep(ctx, "keys", "list")), "\n")[1:]
	expect(len(lines) == len(states), "there are %d signing keys, want %d", len(lines), len(states))
	for i, line := range lines {
		columns := strings.Fields(line)
		expect(len(columns) > 3 && columns[2] == states[i], "want a key that is %s, not: %s", states[i], line)
		kids = append(kids, columns[0])
	}
	return kids
}
