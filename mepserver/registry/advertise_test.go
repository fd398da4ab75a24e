package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/mepserver/registry"
)

// service is a registered service with a transport.
func service(t *testing.T, protocol string, endpoint *mp1.EndPointInfo) *registry.Service {
	t.Helper()
	const owner, id = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f", "375602e6-dbac-40f3-8939-63c3819308df"
	text, err := state.Encode(state.Service{Version: state.Current(), Info: mp1.ServiceInfo{
		SerInstanceID: id, SerName: "clock", Version: "1", State: mp1.StateActive, Serializer: mp1.SerializerJSON,
		TransportInfo: &mp1.TransportInfo{
			ID: "t", Name: "t", Type: mp1.TransportRPC, Protocol: protocol, Version: "1", Endpoint: endpoint, Security: &mp1.SecurityInfo{},
		},
	}})
	require.NoError(t, err)
	s, err := registry.Decode(state.PrefixServices, state.ServiceKey(owner, id), []byte(text), 1)
	require.NoError(t, err)
	return s
}

func TestWhatConsumersAreShown(t *testing.T) {
	t.Parallel()
	const host = "375602e6-dbac-40f3-8939-63c3819308df.instances.mec.example"
	uris := func(list ...string) *mp1.EndPointInfo { return &mp1.EndPointInfo{URIs: list} }
	grpc, rest := service(t, "gRPC", uris("http://10.0.0.7:9702")), service(t, "HTTP", uris("http://10.0.0.7:9701/v1"))
	schemed, broker := service(t, "gRPC", uris("grpc://10.0.0.7:9702", "grpc://10.0.0.8:9702")), service(t, "AMQP", uris("amqp://10.0.0.7"))
	addressed := service(t, "grpc", &mp1.EndPointInfo{Addresses: []mp1.EndPointAddress{{Host: "10.0.0.7", Port: 9702}}})
	for name, x := range map[string]struct {
		service      *registry.Service
		base, domain string
		want         string
	}{
		"nothing":                        {grpc, "", "mec.example", "http://10.0.0.7:9702"},
		"gRPC without a domain":          {grpc, "https://edge1.example.net:8443", "", "http://10.0.0.7:9702"},
		"gRPC":                           {grpc, "https://edge1.example.net:8443", "mec.example", "https://" + host + ":8443"},
		"gRPC, the domain in capitals":   {grpc, "https://edge1.example.net:8443/", "MEC.Example.", "https://" + host + ":8443"},
		"gRPC at the usual port":         {grpc, "https://edge1.example.net", "mec.example", "https://" + host + ":443"},
		"gRPC without TLS":               {grpc, "http://10.0.0.7", "mec.example", "h2c://" + host + ":80"},
		"gRPC with a scheme of its own":  {schemed, "https://[2001:db8::7]:8443", "mec.example", "grpcs://" + host + ":8443"},
		"the same without TLS":           {schemed, "http://127.0.0.1:8000", "mec.example", "grpc://" + host + ":8000"},
		"gRPC at addresses":              {addressed, "https://edge1.example.net:8443", "mec.example", "https://" + host + ":8443"},
		"HTTP is at its path as ever":    {rest, "https://edge1.example.net:8443", "mec.example", "https://edge1.example.net:8443/instances/375602e6-dbac-40f3-8939-63c3819308df"},
		"what is not reached through it": {broker, "https://edge1.example.net:8443", "mec.example", "amqp://10.0.0.7"},
		"a domain that is none":          {grpc, "https://edge1.example.net:8443", "a b", "http://10.0.0.7:9702"},
	} {
		t.Run(name, func(t *testing.T) {
			v := registry.View{Base: "http://mep", Gateway: registry.NewGateway(x.base, x.domain)}
			shown := x.service.AppendJSON(nil, v)
			require.Len(t, shown, x.service.JSONLen(v))
			var info mp1.ServiceInfo
			require.NoError(t, json.Unmarshal(shown, &info))
			require.Equal(t, x.want, info.TransportInfo.Endpoint.URIs[0])
			v.Owner = x.service.AppInstanceID
			var mine mp1.ServiceInfo
			require.NoError(t, json.Unmarshal(x.service.AppendJSON(nil, v), &mine))
			own, err := x.service.Info()
			require.NoError(t, err)
			require.Equal(t, own.TransportInfo.Endpoint, mine.TransportInfo.Endpoint, "the producer sees its own")
		})
	}
}
