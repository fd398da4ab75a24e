// Package mp1 defines the data types of the Mp1 reference point according to ETSI GS MEC 011 V3.1.1, and the checks that a
// value must pass before it is sent or accepted.
//
// The platform uses the same types internally: no other package defines a second ServiceInfo.
package mp1

import "encoding/json"

// ServiceState is the state of a MEC service instance (MEC 011 8.1.6.4).
type ServiceState string

// The states of a service.
const (
	// StateActive: the service can be consumed.
	StateActive ServiceState = "ACTIVE"
	// StateInactive: the app has deactivated the service.
	StateInactive ServiceState = "INACTIVE"
	// StateSuspended: the app has missed its heartbeats.
	StateSuspended ServiceState = "SUSPENDED"
)

// LocalityType is the scope within which a service counts as local (MEC 011 8.1.6.5).
type LocalityType string

// The scopes of locality.
const (
	LocalityMECSystem LocalityType = "MEC_SYSTEM"
	LocalityMECHost   LocalityType = "MEC_HOST"
	LocalityNFVIPop   LocalityType = "NFVI_POP"
	LocalityZone      LocalityType = "ZONE"
	LocalityZoneGroup LocalityType = "ZONE_GROUP"
	LocalityNFVINode  LocalityType = "NFVI_NODE"
)

// SerializerType names the format of a service's messages. The enumeration is extensible (MEC 011 8.1.6.3): other values are
// carried unchanged.
type SerializerType string

// The serializers defined by the standard.
const (
	SerializerJSON      SerializerType = "JSON"
	SerializerXML       SerializerType = "XML"
	SerializerProtobuf3 SerializerType = "PROTOBUF3"
)

// TransportType names the kind of a transport. The enumeration is extensible (MEC 011 8.1.6.2): other values are carried
// unchanged.
type TransportType string

// The transport types defined by the standard.
const (
	TransportRESTHTTP     TransportType = "REST_HTTP"
	TransportMBTopicBased TransportType = "MB_TOPIC_BASED"
	TransportMBRouting    TransportType = "MB_ROUTING"
	TransportMBPubSub     TransportType = "MB_PUBSUB"
	TransportRPC          TransportType = "RPC"
	TransportRPCStreaming TransportType = "RPC_STREAMING"
	TransportWebSocket    TransportType = "WEBSOCKET"
)

// LinkType holds a reference to a resource (MEC 011 6.3.2).
type LinkType struct {
	// Href is the URI of the resource.
	Href string `json:"href"`
}

// ServiceInfo describes a MEC service instance (MEC 011 8.1.2.2).
type ServiceInfo struct {
	// SerInstanceID is assigned by the platform: absent in a POST, present otherwise.
	SerInstanceID string `json:"serInstanceId,omitempty"`
	// SerName is the name of the service, 1 to 255 characters. Several instances may share it.
	SerName string `json:"serName"`
	// SerCategory is the category of the service.
	SerCategory *CategoryRef `json:"serCategory,omitempty"`
	// Version is the version of the service, 1 to 64 characters.
	Version string `json:"version"`
	// State is ACTIVE or INACTIVE in requests; only the platform sets SUSPENDED.
	State ServiceState `json:"state"`
	// TransportID is the id of a platform transport (GET /transports); only in a POST, instead of TransportInfo.
	TransportID string `json:"transportId,omitempty"`
	// TransportInfo describes how to reach the service; always present in responses.
	TransportInfo *TransportInfo `json:"transportInfo,omitempty"`
	// Serializer is the format of the service's messages.
	Serializer SerializerType `json:"serializer"`
	// ScopeOfLocality defaults to MEC_HOST.
	ScopeOfLocality LocalityType `json:"scopeOfLocality,omitempty"`
	// ConsumedLocalOnly restricts the service to consumers within ScopeOfLocality; defaults to true.
	ConsumedLocalOnly *bool `json:"consumedLocalOnly,omitempty"`
	// IsLocal says whether the service is local to the reader. The platform computes it; it is ignored in requests.
	IsLocal *bool `json:"isLocal,omitempty"`
	// LivenessInterval is the time between two heartbeats in seconds. 0 requests the platform's default; absent means that no
	// heartbeats are sent (MEC 011 5.2.12).
	LivenessInterval *int `json:"livenessInterval,omitempty"`
	// Links is absent in requests.
	Links *ServiceLinks `json:"_links,omitempty"`
}

// ServiceLinks holds the links of a ServiceInfo.
type ServiceLinks struct {
	// Self is the URI of this service.
	Self LinkType `json:"self"`
	// Liveness is where heartbeats are sent; present if and only if the platform expects them.
	Liveness *LinkType `json:"liveness,omitempty"`
}

// CategoryRef refers to a category of services (MEC 011 8.1.5.2). All members are required.
type CategoryRef struct {
	Href    string `json:"href"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// TransportInfo describes a transport (MEC 011 8.1.2.3).
type TransportInfo struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Description string        `json:"description,omitempty"`
	Type        TransportType `json:"type"`
	// Protocol is the name of the protocol, "HTTP" for REST.
	Protocol string `json:"protocol"`
	Version  string `json:"version"`
	// Endpoint is where the transport is reached.
	Endpoint *EndPointInfo `json:"endpoint"`
	// Security says how the transport is secured; it may be empty but not absent.
	Security *SecurityInfo `json:"security"`
	// ImplSpecificInfo is carried unchanged.
	ImplSpecificInfo json.RawMessage `json:"implSpecificInfo,omitempty"`
}

// EndPointInfo is the address of a transport: exactly one member is present (MEC 011 8.1.5.3).
type EndPointInfo struct {
	// URIs is used for REST.
	URIs []string `json:"uris,omitempty"`
	// FQDN holds fully qualified domain names (new in V3.1.1).
	FQDN []string `json:"fqdn,omitempty"`
	// Addresses holds pairs of host and port.
	Addresses []EndPointAddress `json:"addresses,omitempty"`
	// Alternative is an address in any other form, carried unchanged.
	Alternative json.RawMessage `json:"alternative,omitempty"`
}

// EndPointAddress is a host and a port.
type EndPointAddress struct {
	// Host is an IP address or a host name.
	Host string `json:"host"`
	// Port is 1 to 65535.
	Port int `json:"port"`
}

// SecurityInfo says how a transport is secured (MEC 011 8.1.5.4).
type SecurityInfo struct {
	// OAuth2Info is present when OAuth 2.0 secures the transport.
	OAuth2Info *OAuth2Info `json:"oAuth2Info,omitempty"`
	// Extensions holds further members of the object, carried unchanged.
	Extensions map[string]json.RawMessage `json:"-" bind:"rest"`
}

// MarshalJSON writes the extension members alongside the standard one.
func (s SecurityInfo) MarshalJSON() ([]byte, error) {
	members := make(map[string]any, len(s.Extensions)+1)
	for name, value := range s.Extensions {
		members[name] = value
	}
	if s.OAuth2Info != nil {
		members["oAuth2Info"] = s.OAuth2Info
	}
	return json.Marshal(members)
}

// UnmarshalJSON keeps unknown members as extensions.
func (s *SecurityInfo) UnmarshalJSON(data []byte) error {
	*s = SecurityInfo{}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return err
	}
	if raw, ok := members["oAuth2Info"]; ok {
		if err := json.Unmarshal(raw, &s.OAuth2Info); err != nil {
			return err
		}
		delete(members, "oAuth2Info")
	}
	if len(members) > 0 {
		s.Extensions = members
	}
	return nil
}

// OAuth2Info describes how to obtain a token for the transport.
type OAuth2Info struct {
	// GrantTypes has 1 to 4 elements.
	GrantTypes []GrantType `json:"grantTypes"`
	// TokenEndpoint is required unless the implicit grant is the only one.
	TokenEndpoint string `json:"tokenEndpoint,omitempty"`
}

// GrantType is an OAuth 2.0 grant (MEC 011 8.1.5.4).
type GrantType string

// The grants defined by the standard.
const (
	GrantAuthorizationCode GrantType = "OAUTH2_AUTHORIZATION_CODE"
	GrantImplicit          GrantType = "OAUTH2_IMPLICIT_GRANT"
	GrantResourceOwner     GrantType = "OAUTH2_RESOURCE_OWNER"
	GrantClientCredentials GrantType = "OAUTH2_CLIENT_CREDENTIALS" //nolint:gosec // the name of a grant
)

// TimeStamp is a moment since the Unix epoch, UTC (MEC 011 8.1.2.4).
type TimeStamp struct {
	Seconds uint32 `json:"seconds"`
	// NanoSeconds is 0 to 999,999,999.
	NanoSeconds uint32 `json:"nanoSeconds"`
}

// ServiceLivenessInfo is the liveness resource of a service (MEC 011 8.1.2.4).
type ServiceLivenessInfo struct {
	State ServiceState `json:"state"`
	// TimeStamp is when the last heartbeat was received.
	TimeStamp TimeStamp `json:"timeStamp"`
	// Interval is the time between two heartbeats in seconds.
	Interval int `json:"interval"`
}

// ServiceLivenessUpdate is a heartbeat (MEC 011 8.1.2.5). State is always ACTIVE.
type ServiceLivenessUpdate struct {
	State ServiceState `json:"state"`
}
