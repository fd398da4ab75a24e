package blackbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

const (
	root     = "/mec_service_mgmt/v1"
	services = root + "/services"
)

type object = harness.Object

// app is a MEC app instance with its own id.
type app struct {
	*harness.Client
	id     string
	prefix string // the mount prefix it uses, "" or "/mep"
}

func newApp(c *harness.Client) app { return app{Client: c, id: uuid.NewString()} }

// with is the same app in another test.
func (a app) with(c *harness.Client) app { return app{Client: c, id: a.id, prefix: a.prefix} }

// under is the same app at another mount prefix.
func (a app) under(prefix string) app { return app{Client: a.Client, id: a.id, prefix: prefix} }

func (a app) root() string             { return a.prefix + root }
func (a app) services() string         { return a.root() + "/applications/" + a.id + "/services" }
func (a app) service(id string) string { return a.services() + "/" + id }
func (a app) liveness(id string) string {
	return a.services() + "/" + id + "/liveness"
}
func (a app) subscriptions() string { return a.root() + "/applications/" + a.id + "/subscriptions" }
func (a app) subscription(id string) string {
	return a.subscriptions() + "/" + id
}

// registered is a service as it was answered.
type registered struct {
	id, etag string
	info     object
}

// register registers a service, which has to work.
func (a app) register(info object) registered {
	a.TB().Helper()
	answer := a.Post(a.services(), info).Is(201)
	return a.read(answer)
}

// replace puts a service, which has to work.
func (a app) replace(id string, info object) registered {
	a.TB().Helper()
	return a.read(a.Put(a.service(id), info).Is(200))
}

func (a app) read(answer *harness.Answer) registered {
	a.TB().Helper()
	info := answer.Object()
	id, _ := info["serInstanceId"].(string)
	require.NotEmpty(a.TB(), id)
	return registered{id: id, etag: answer.ETag(), info: info}
}

// remove deregisters a service, which has to work.
func (a app) remove(id string) {
	a.TB().Helper()
	a.Delete(a.service(id)).Is(204)
}

// beat sends a heartbeat.
func (a app) beat(id string, options ...harness.RequestOption) *harness.Answer {
	a.TB().Helper()
	return a.Patch(a.liveness(id), object{"state": "ACTIVE"}, options...)
}

// subscribe makes a subscription, which has to work, and returns its id. filter is nil for all services.
func (a app) subscribe(callback string, filter object) string {
	a.TB().Helper()
	body := subscription(callback)
	if filter != nil {
		body["filteringCriteria"] = filter
	}
	answer := a.Post(a.subscriptions(), body).Is(201)
	location := answer.Header.Get("Location")
	return location[strings.LastIndex(location, "/")+1:]
}

func subscription(callback string) object {
	return object{"subscriptionType": "SerAvailabilityNotificationSubscription", "callbackReference": callback}
}

// minimal is a registration with nothing but what the standard requires, on the platform's own transport.
func minimal(name string) object {
	return object{"serName": name, "version": "1.0", "state": "ACTIVE", "serializer": "JSON", "transportId": "rest-http"}
}

// transport is a transport of the app with nothing but what the standard requires.
func transport() object {
	return object{
		"id": "t-1", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
		"endpoint": object{"uris": []any{"http://10.0.0.1:8080/api"}}, "security": object{},
	}
}

// own is minimal with the app's own transport, so that it can be put as well as posted.
func own(name string) object {
	return but(minimal(name), "transportId", nil, "transportInfo", transport())
}

// full is a registration with every member there is.
func full(name string) object {
	return object{
		"serName": name, "version": "2.1.0", "state": "INACTIVE", "serializer": "PROTOBUF3",
		"scopeOfLocality": "ZONE", "consumedLocalOnly": false, "livenessInterval": 30,
		"serCategory": object{"href": "/catalogue/rni", "id": "cat-rni", "name": "RNI", "version": "3.0"},
		"transportInfo": object{
			"id": "t-9", "name": "queue", "description": "a queue", "type": "MB_TOPIC_BASED", "protocol": "AMQP", "version": "1.0",
			"endpoint": object{"addresses": []any{object{"host": "10.0.0.9", "port": 5672}, object{"host": "queue.example", "port": 5671}}},
			"security": object{
				"oAuth2Info": object{"grantTypes": []any{"OAUTH2_CLIENT_CREDENTIALS"}, "tokenEndpoint": "https://auth.example/token"},
				"vendorKey":  object{"a": []any{1, "b", nil, true}},
			},
			"implSpecificInfo": object{"topics": []any{"x", "y"}, "depth": 3},
		},
	}
}

// but is a deep copy of o with members set to other values: pairs of a path such as "transportInfo.endpoint.uris" and a
// value. The value nil takes the member away, null sets it to null.
func but(o object, pairs ...any) object {
	o = deep(o)
	for i := 0; i < len(pairs); i += 2 {
		path := strings.Split(pairs[i].(string), ".")
		at := o
		for _, name := range path[:len(path)-1] {
			at = step(at, name)
		}
		last := path[len(path)-1]
		switch v := pairs[i+1]; v {
		case nil:
			delete(at, last)
		case null:
			at[last] = nil
		default:
			at[last] = v
		}
	}
	return o
}

type nothing struct{}

// null stands for the JSON value null in but.
var null any = nothing{}

// step goes into a member; "addresses[0]" is the first element of an array.
func step(o object, name string) object {
	name, index, isElement := strings.Cut(strings.TrimSuffix(name, "]"), "[")
	if !isElement {
		return o[name].(object)
	}
	var n int
	if _, err := fmt.Sscan(index, &n); err != nil {
		panic(err)
	}
	return o[name].([]any)[n].(object)
}

func deep(o object) object {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var copied object
	if err := json.Unmarshal(data, &copied); err != nil {
		panic(err)
	}
	return copied
}

// without is a shallow copy of o without some members.
func without(o object, names ...string) object {
	o = maps.Clone(o)
	for _, n := range names {
		delete(o, n)
	}
	return o
}

// names lists a member of the objects of a list, sorted.
func names(list []object, member string) []string {
	found := []string{}
	for _, o := range list {
		s, _ := o[member].(string)
		found = append(found, s)
	}
	slices.Sort(found)
	return found
}

// same compares values as JSON.
func same(t testing.TB, want, got any, msg ...any) {
	t.Helper()
	w, err := json.Marshal(want)
	require.NoError(t, err)
	g, err := json.Marshal(got)
	require.NoError(t, err)
	require.JSONEq(t, string(w), string(g), msg...)
}

// self is the href of a resource to itself.
func self(o object) string {
	links, _ := o["_links"].(object)
	link, _ := links["self"].(object)
	href, _ := link["href"].(string)
	return href
}
