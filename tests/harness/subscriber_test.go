package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotificationsAreCheckedAgainstTheDocument(t *testing.T) {
	const links = `"_links":{"subscription":{"href":"http://mep/s"}}`
	for name, x := range map[string]struct {
		body string
		good bool
	}{
		"an addition":              {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"link":{"href":"http://mep/x"},"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"ADDED"}],` + links + `}`, true},
		"a removal":                {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"REMOVED"}],` + links + `}`, true},
		"a removal with a link":    {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"link":{"href":"http://mep/x"},"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"REMOVED"}],` + links + `}`, false},
		"an addition without":      {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"ADDED"}],` + links + `}`, false},
		"the type of 2.1.1":        {`{"notificationType":"SerAvailabilityNotificationSubscription","serviceReferences":[{"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"REMOVED"}],` + links + `}`, false},
		"no subscription":          {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"REMOVED"}]}`, false},
		"a change type of its own": {`{"notificationType":"SerAvailabilityNotification","serviceReferences":[{"link":{"href":"http://mep/x"},"serName":"n","serInstanceId":"i","state":"ACTIVE","changeType":"MOVED"}],` + links + `}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := availabilityNotification.check([]byte(x.body)); x.good {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
		})
	}
}

func TestTerminationNotificationsAndEventsAreCheckedAgainstTheDocuments(t *testing.T) {
	const links = `"_links":{"subscription":{"href":"http://mep/s"},"confirmTermination":{"href":"http://mep/c"}}`
	for name, x := range map[string]struct {
		kind message
		body string
		good bool
	}{
		"a termination":           {terminationNotification, `{"notificationType":"AppTerminationNotification","operationAction":"TERMINATING","maxGracefulTimeout":1,` + links + `}`, true},
		"without any time":        {terminationNotification, `{"notificationType":"AppTerminationNotification","operationAction":"TERMINATING","maxGracefulTimeout":0,` + links + `}`, false},
		"an action as misprinted": {terminationNotification, `{"notificationType":"AppTerminationNotification","operationAction":"STOPPPING","maxGracefulTimeout":1,` + links + `}`, false},
		"an operation":            {eventData["operation"], `{"operationId":"5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f","appInstanceId":"a","lcmOperation":"START","operationState":"COMPLETED"}`, true},
		"an unknown operation":    {eventData["operation"], `{"operationId":"5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f","appInstanceId":"a","lcmOperation":"DANCE","operationState":"COMPLETED"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := x.kind.check([]byte(x.body)); x.good {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
		})
	}
}
