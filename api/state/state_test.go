package state_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

func service() state.Service {
	yes, interval, asked := true, 10, 0
	return state.Service{
		Version: state.Current(),
		Info: mp1.ServiceInfo{
			SerInstanceID: "id", SerName: "näme", SerCategory: &mp1.CategoryRef{Href: "/c", ID: "cat", Name: "n", Version: "1"},
			Version: "1", State: mp1.StateActive, Serializer: mp1.SerializerJSON, ScopeOfLocality: mp1.LocalityZone,
			ConsumedLocalOnly: &yes, LivenessInterval: &interval,
			TransportInfo: &mp1.TransportInfo{
				ID: "t", Name: "n", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "2", Endpoint: &mp1.EndPointInfo{URIs: []string{"http://x/"}},
				Security: &mp1.SecurityInfo{
					OAuth2Info: &mp1.OAuth2Info{GrantTypes: []mp1.GrantType{mp1.GrantClientCredentials}, TokenEndpoint: "/t"},
					Extensions: map[string]json.RawMessage{"vendor": json.RawMessage(`{"a":[1,2]}`)},
				},
				ImplSpecificInfo: json.RawMessage(`"x"`),
			},
		},
		Asked: &asked, Beat: time.Unix(1e9, 5).UTC(), Suspended: time.Unix(2e9, 0).UTC(),
	}
}

func TestServiceSurvivesTheStore(t *testing.T) {
	rec := service()
	value, err := state.Encode(rec)
	require.NoError(t, err)
	got, err := state.Decode[state.Service]([]byte(value))
	require.NoError(t, err)
	require.Equal(t, rec, got, "extension members and opaque ones included")
}

func TestHeadOfAServiceAgreesWithTheWholeRecord(t *testing.T) {
	rec := service()
	value, err := state.Encode(rec)
	require.NoError(t, err)
	h, err := state.DecodeServiceHead([]byte(value))
	require.NoError(t, err)
	info, err := json.Marshal(rec.Info)
	require.NoError(t, err)
	require.JSONEq(t, string(info), string(h.Info))
	h.Info = nil
	require.Equal(t, state.ServiceHead{
		SerName: "näme", CategoryID: "cat", State: mp1.StateActive, Scope: mp1.LocalityZone, ConsumedLocalOnly: true,
		Interval: 10, Asked: 0, Beat: rec.Beat, Suspended: rec.Suspended,
	}, h)
}

func TestRecordsThisReleaseDoesNotKnowAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"newer schema": `{"v":2,"info":{"serName":"x"}}`, "no version": `{"info":{"serName":"x"}}`, "no info": `{"v":1}`,
		"info of another type": `{"v":1,"info":"serName serName"}`, "no JSON": `{"v":1`, "nothing": ``,
	} {
		_, err := state.DecodeServiceHead([]byte(value))
		require.Error(t, err, name)
	}
	_, err := state.Decode[state.Cursor]([]byte(`{"v":2,"revision":1}`))
	require.ErrorContains(t, err, "schema version 2")
}

func TestSplitKey(t *testing.T) {
	owner, id, err := state.SplitKey(state.PrefixServices, state.ServiceKey("app", "svc"))
	require.NoError(t, err)
	require.Equal(t, []string{"app", "svc"}, []string{owner, id})
	for _, key := range []string{"", state.PrefixServices, state.PrefixServices + "app", state.PrefixServices + "app/", state.PrefixServices + "/svc", state.PrefixServices + "a/b/c", "/other/a/b"} {
		_, _, err := state.SplitKey(state.PrefixServices, key)
		require.Error(t, err, key)
	}
}

// FuzzDecodeServiceHead checks that no stored value makes the decoder panic, and that accepted values can be rendered.
func FuzzDecodeServiceHead(f *testing.F) {
	value, err := state.Encode(service())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(value))
	f.Add([]byte(`{"v":1,"info":{"serName":"x"}}`))
	f.Add([]byte(`{"v":1,"info":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := state.DecodeServiceHead(data)
		if err == nil && (len(h.Info) < 2 || h.Info[0] != '{' || h.Info[len(h.Info)-1] != '}') {
			t.Fatalf("accepted %q", h.Info)
		}
	})
}
