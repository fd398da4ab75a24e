package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAStreamOfEventsIsRead(t *testing.T) {
	const hello = ": mep\nretry: 2000\nid: 11\n\n"
	const configured = "id: 12-0\nevent: app\ndata: {\"appInstanceId\":\"" + producerID + "\",\"lifecycle\":\"CONFIGURED\",\"previousLifecycle\":\"NOT_CONFIGURED\"}\n\n"
	const began = "id: 12-1\nevent: operation\ndata: {\"appInstanceId\":\"" + producerID + "\",\"lcmOperation\":\"CONFIGURE\",\"operationState\":\"PROCESSING\"}\n\n"
	for _, tc := range []struct {
		name, stream, last, fault string
		events                    []string
	}{
		{"nothing yet", hello, "11", "", nil},
		{
			"events, with what is none between", hello + configured + ":\n\n" + began + ":\nid: 20\n\n", "20", "",
			[]string{"app producer NOT_CONFIGURED -> CONFIGURED", "operation producer CONFIGURE PROCESSING"},
		},
		{"broken off within an event", hello + configured + began[:30], "12-0", "", []string{"app producer NOT_CONFIGURED -> CONFIGURED"}},
		{"the same event twice", hello + began + began, "12-1", "after the event 12-1 came the event 12-1", []string{"operation producer CONFIGURE PROCESSING"}},
		{"an earlier event", hello + began + configured, "12-1", "after the event 12-1 came the event 12-0", []string{"operation producer CONFIGURE PROCESSING"}},
		{"an event of a revision that is over", "id: 12\n\n" + configured, "12", "after the event 12 came the event 12-0", nil},
		{"events that are missing", "id: 12\n\nid: 13-0\nevent: reset\ndata: {}\n\n", "12", "came the event 13-0, reset", nil},
		{"no JSON", "id: 12-0\nevent: app\ndata: {\n\n", "", "unexpected end of JSON input", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &watcher{news: make(chan struct{}, 1)}
			err := w.read(strings.NewReader(tc.stream))
			if tc.fault == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.fault)
			}
			require.Equal(t, tc.last, w.last)
			var got []string
			for _, e := range w.unshown {
				got = append(got, e.String())
			}
			require.Equal(t, tc.events, got)
		})
	}
}
