package mp1

import "encoding/json"

// RuleState says whether a rule is to be applied (MEC 011 7.1.2.2, 7.1.2.3).
type RuleState string

// The states of rules.
const (
	RuleActive   RuleState = "ACTIVE"
	RuleInactive RuleState = "INACTIVE"
)

// TrafficRule defines the treatment of packets that match its filters (MEC 011 7.1.2.2).
type TrafficRule struct {
	// TrafficRuleID has 1 to 63 characters.
	TrafficRuleID string `json:"trafficRuleId"`
	// FilterType says what the filters match: the packets of flows in both directions, or single packets.
	FilterType FilterType `json:"filterType"`
	// Priority ranges from 0, the highest, to 255. It is required.
	Priority *int `json:"priority"`
	// TrafficFilter has at least one element; a packet matches the rule when it matches any of them.
	TrafficFilter []TrafficFilter `json:"trafficFilter"`
	// Action is applied to packets that match.
	Action TrafficAction `json:"action"`
	// DstInterface is where packets go: one for FORWARD_* and PASSTHROUGH, up to two for DUPLICATE_* (the first towards the
	// clients, the second towards the core network), none for DROP. If it is absent, the data plane chooses.
	DstInterface []DestinationInterface `json:"dstInterface,omitempty"`
	// State may be changed by the app.
	State RuleState `json:"state"`
}

// FilterType says what the filters of a traffic rule match (MEC 011 7.1.2.2).
type FilterType string

// The types of filters.
const (
	// FilterFlow matches upstream packets; the downstream packets of the same flow are treated the same way.
	FilterFlow FilterType = "FLOW"
	// FilterPacket matches each packet individually.
	FilterPacket FilterType = "PACKET"
)

// TrafficAction is applied to packets that match a traffic rule (MEC 011 7.1.2.2).
type TrafficAction string

// The actions.
const (
	ActionDrop                  TrafficAction = "DROP"
	ActionForwardDecapsulated   TrafficAction = "FORWARD_DECAPSULATED"
	ActionForwardEncapsulated   TrafficAction = "FORWARD_ENCAPSULATED"
	ActionPassthrough           TrafficAction = "PASSTHROUGH"
	ActionDuplicateDecapsulated TrafficAction = "DUPLICATE_DECAPSULATED"
	ActionDuplicateEncapsulated TrafficAction = "DUPLICATE_ENCAPSULATED"
)

// TrafficFilter matches packets (MEC 011 7.1.5.2). A packet matches when it matches at least one element of every member that
// is present.
type TrafficFilter struct {
	// SrcAddress and DstAddress hold addresses, prefixes, addresses with a mask, and ranges; see ParseAddressRange.
	SrcAddress []string `json:"srcAddress,omitempty"`
	DstAddress []string `json:"dstAddress,omitempty"`
	// SrcPort and DstPort hold ports and ranges of ports; see ParsePortRange.
	SrcPort []string `json:"srcPort,omitempty"`
	DstPort []string `json:"dstPort,omitempty"`
	// Protocol holds protocol names and numbers; see ParseProtocol.
	Protocol []string `json:"protocol,omitempty"`
	// Tag holds labels that the data plane understands.
	Tag []string `json:"tag,omitempty"`
	// SrcTunnelAddress and TgtTunnelAddress hold addresses of tunnel end points, as SrcAddress does.
	SrcTunnelAddress []string `json:"srcTunnelAddress,omitempty"`
	TgtTunnelAddress []string `json:"tgtTunnelAddress,omitempty" alias:"dstTunnelAddress"`
	// SrcTunnelPort and DstTunnelPort hold ports of tunnel end points, as SrcPort does.
	SrcTunnelPort []string `json:"srcTunnelPort,omitempty"`
	DstTunnelPort []string `json:"dstTunnelPort,omitempty"`
	// QCI is the QoS class identifier, 1 to 254.
	QCI *int `json:"qCI,omitempty"`
	// DSCP is the differentiated services code point of IPv4, 0 to 63.
	DSCP *int `json:"dSCP,omitempty"`
	// TC is the traffic class of IPv6, 0 to 255.
	TC *int `json:"tC,omitempty"`
	// URI and PacketLabel are criteria of MEC 010-2, carried for the data plane.
	URI         []string `json:"uri,omitempty"`
	PacketLabel []string `json:"packetLabel,omitempty"`
}

// DestinationInterface is where packets go (MEC 011 7.1.5.3).
type DestinationInterface struct {
	InterfaceType InterfaceType `json:"interfaceType"`
	// TunnelInfo is present only for a tunnel.
	TunnelInfo *TunnelInfo `json:"tunnelInfo,omitempty" alias:"TunnelInfo"`
	// SrcMACAddress and DstMACAddress are present only for MAC.
	SrcMACAddress string `json:"srcMacAddress,omitempty" alias:"srcMACAddress"`
	DstMACAddress string `json:"dstMacAddress,omitempty" alias:"dstMACAddress"`
	// DstIPAddress is present only for IP.
	DstIPAddress string `json:"dstIpAddress,omitempty" alias:"dstIPAddress"`
}

// InterfaceType is the kind of a destination interface (MEC 011 7.1.5.3).
type InterfaceType string

// The kinds of interfaces.
const (
	InterfaceTunnel InterfaceType = "TUNNEL"
	InterfaceMAC    InterfaceType = "MAC"
	InterfaceIP     InterfaceType = "IP"
)

// TunnelInfo describes a tunnel (MEC 011 7.1.5.4).
type TunnelInfo struct {
	// TunnelType is GTP_U, GRE or another type that the data plane supports.
	TunnelType       string `json:"tunnelType"`
	TunnelDstAddress string `json:"tunnelDstAddress,omitempty"`
	TunnelSrcAddress string `json:"tunnelSrcAddress,omitempty"`
	// TunnelSpecificData is a member of MEC 010-2, carried unchanged for the data plane.
	TunnelSpecificData json.RawMessage `json:"tunnelSpecificData,omitempty"`
}

// DNSRule defines the address that a name resolves to (MEC 011 7.1.2.3).
type DNSRule struct {
	// DNSRuleID has 1 to 63 characters.
	DNSRuleID string `json:"dnsRuleId"`
	// DomainName is a fully qualified domain name; its first label may be "*".
	DomainName    string        `json:"domainName"`
	IPAddressType IPAddressType `json:"ipAddressType"`
	// IPAddress is an address of the family IPAddressType.
	IPAddress string `json:"ipAddress"`
	// TTL is in seconds, 0 to 2147483647; if it is absent, the rule never expires.
	TTL *int64 `json:"ttl,omitempty"`
	// State may be changed by the app.
	State RuleState `json:"state"`
}

// IPAddressType is the family of an address (MEC 011 7.1.2.3).
type IPAddressType string

// The families.
const (
	IPv4 IPAddressType = "IP_V4"
	IPv6 IPAddressType = "IP_V6"
)

// DNSRuleUpdate is a change of a DNS rule by its app (MEC 011 7.2.10.3.2). Absent members keep their value; DNSRuleID and
// DomainName, if present, must be those of the rule.
type DNSRuleUpdate struct {
	DNSRuleID     string        `json:"dnsRuleId,omitempty"`
	DomainName    string        `json:"domainName,omitempty"`
	IPAddressType IPAddressType `json:"ipAddressType,omitempty"`
	IPAddress     string        `json:"ipAddress,omitempty"`
	TTL           *int64        `json:"ttl,omitempty"`
	// State is required.
	State RuleState `json:"state"`
}
