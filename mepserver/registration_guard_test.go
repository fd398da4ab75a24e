package mepserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	mp1types "github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/etcdtest"
)

// at returns a registration with the endpoint.
func at(endpoint string) string {
	return strings.Replace(serviceJSON("svc", "ACTIVE", ""), `{"uris":["http://10.0.0.1/x"]}`, endpoint, 1)
}

func TestAServiceCannotBeRegisteredAtAnAddressThePlatformMustNotCall(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	services := "/mec_service_mgmt/v1/applications/" + uuid.NewString() + "/services"
	mm5 := strings.TrimPrefix(n.Mm5URL(), "http://")
	_, port, _ := strings.Cut(mm5, ":")
	var there mp1types.ServiceInfo
	rec := n.mustCall(t, http.StatusCreated, http.MethodPost, services, at(`{"uris":["http://127.0.0.1:9/","https://[fd00::1]/x"]}`))
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &there))

	for name, c := range map[string]struct{ endpoint, param, says string }{
		"this listener":                   {`{"uris":["` + n.URL() + `/x"]}`, "uris[0]", "own listeners"},
		"another listener":                {`{"uris":["http://10.0.0.1/","http://` + mm5 + `"]}`, "uris[1]", "own listeners"},
		"another listener, IPv4 in IPv6":  {`{"uris":["ws://[::ffff:127.0.0.1]:` + port + `/"]}`, "uris[0]", "own listeners"},
		"another listener, as an address": {`{"addresses":[{"host":"127.0.0.1","port":` + port + `}]}`, "addresses[0].host", "own listeners"},
		"link-local":                      {`{"uris":["grpc://169.254.169.254/"]}`, "uris[0]", "link-local"},
		"link-local, IPv6":                {`{"uris":["h2c://[fe80::1%25eth0]:80/"]}`, "uris[0]", "link-local"},
		"unspecified":                     {`{"uris":["wss://0.0.0.0:1/"]}`, "uris[0]", "unspecified"},
		"unspecified, as an address":      {`{"addresses":[{"host":"::","port":80}]}`, "addresses[0].host", "unspecified"},
		"multicast":                       {`{"uris":["https://[ff02::1]/"]}`, "uris[0]", "multicast"},
	} {
		t.Run(name, func(t *testing.T) {
			for method, path := range map[string]string{http.MethodPost: services, http.MethodPut: services + "/" + there.SerInstanceID} {
				body := at(c.endpoint)
				if method == http.MethodPut {
					body = strings.Replace(body, "{", fmt.Sprintf(`{"serInstanceId":%q,`, there.SerInstanceID), 1)
				}
				rec := n.mustCall(t, http.StatusBadRequest, method, path, body)
				require.Contains(t, rec.Body.String(), `"transportInfo.endpoint.`+c.param+`"`, method)
				require.Contains(t, rec.Body.String(), c.says, method)
			}
		})
	}
}

func TestEndpointsThatAreNotCalledAreLeftAlone(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	services := "/mec_service_mgmt/v1/applications/" + uuid.NewString() + "/services"
	for name, endpoint := range map[string]string{
		"loopback":        `{"uris":["http://127.0.0.1:9/"]}`,
		"private":         `{"addresses":[{"host":"10.0.0.1","port":80}]}`,
		"a name":          `{"uris":["http://metadata.internal/"]}`,
		"another scheme":  `{"uris":["mqtt://169.254.1.1:1883"]}`,
		"a relative path": `{"uris":["/x"]}`,
		"a domain name":   `{"fqdn":["localhost"]}`,
	} {
		t.Run(name, func(t *testing.T) { n.mustCall(t, http.StatusCreated, http.MethodPost, services, at(endpoint)) })
	}
}

func TestAServiceAtATransportOfThePlatformCanBeWrittenBack(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	services := "/mec_service_mgmt/v1/applications/" + uuid.NewString() + "/services"
	body := `{"serName":"s","version":"1","state":"ACTIVE","serializer":"JSON","transportId":"` + RESTTransportID + `"}`
	rec := n.mustCall(t, http.StatusCreated, http.MethodPost, services, body)
	var info mp1types.ServiceInfo
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &info))
	require.Equal(t, []string{n.URL()}, info.TransportInfo.Endpoint.URIs)
	n.mustCall(t, http.StatusOK, http.MethodPut, services+"/"+info.SerInstanceID, rec.Body.String())

	forged := strings.Replace(rec.Body.String(), n.URL(), n.Mm5URL(), 1)
	n.mustCall(t, http.StatusBadRequest, http.MethodPut, services+"/"+info.SerInstanceID, forged)
}
