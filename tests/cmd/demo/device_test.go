package main

import (
	"context"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

func TestADeviceLearnsWhatTheUpstreamKnows(t *testing.T) {
	u := newUpstream()
	s := newTestScreen(t)
	s.colour = false
	d := newDevice(s, u.address)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NotPanics(t, func() { d.learns(ctx, dns.TypeA, "News.Example.net.", passedOn("A "+newsAddress)) })
	require.Equal(t, "\n   device -> A News.Example.net.\n   NOERROR\n      News.Example.net. 300 IN A 203.0.113.81\n", s.shown.String())
	require.Equal(t, 1, u.count(newsName))
	require.NotPanics(t, func() { d.learns(ctx, dns.TypeAAAA, newsName, passedOn()) })
	require.NotPanics(t, func() { d.learns(ctx, dns.TypeA, "nothing.example.net.", reply{rcode: dns.RcodeNameError}) })
	require.Equal(t, 1, u.count(newsName))

	// It repeats the query until the context ends.
	require.Panics(t, func() { d.learns(ctx, dns.TypeA, newsName, known("A "+newsAddress)) })
	require.Greater(t, u.count(newsName), 2)
}

func TestRepliesAreToldApart(t *testing.T) {
	for _, o := range []reply{
		{dns.RcodeNameError, true, []string{"A 192.0.2.10"}},
		{dns.RcodeSuccess, false, []string{"A 192.0.2.10"}},
		{dns.RcodeSuccess, true, []string{"A 192.0.2.11"}},
		{dns.RcodeSuccess, true, []string{"A 192.0.2.10", "A 192.0.2.11"}},
		{dns.RcodeSuccess, true, nil},
	} {
		require.False(t, here.is(o), "%+v", o)
	}
	require.True(t, here.is(known("A 192.0.2.10")))
	require.True(t, noSuchRecord.is(known()))
}
