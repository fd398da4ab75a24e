package mm5

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

// MaxAppDName is the maximum length of AppDConfig.AppName, in characters.
const MaxAppDName = 63

// AppDConfig is the configuration of an app instance in EdgeGallery's format. Its rules have the members of Mp1 rules and some
// different values; see Request.
type AppDConfig struct {
	AppTrafficRule []mp1.TrafficRule `json:"appTrafficRule"`
	AppDNSRule     []mp1.DNSRule     `json:"appDNSRule" alias:"appDnsRule"`
	// AppSupportMp1 says whether the app uses Mp1.
	AppSupportMp1 bool `json:"appSupportMp1"`
	// AppName has 1 to 63 characters. It is required.
	AppName string `json:"appName"`
}

// The actions that EdgeGallery names differently from MEC 011. EdgeGallery's MEPM misspells one that its MEP spells as MEC 011
// does.
const (
	actionForwardAsIs            mp1.TrafficAction = "FORWARD_AS_IS"
	actionDuplicateAsIs          mp1.TrafficAction = "DUPLICATE_AS_IS"
	actionDuplicatedDecapsulated mp1.TrafficAction = "DUPLICATED_DECAPSULATED"
)

// The address types that EdgeGallery names differently from MEC 011.
const (
	addressIPv4 mp1.IPAddressType = "IPv4"
	addressIPv6 mp1.IPAddressType = "IPv6"
)

// Check records all faults of d. It does not apply limits; see Validate.
func (d *AppDConfig) Check(faults *problem.InvalidParams) { d.Validate(mp1.RuleLimits{}, faults) }

// Validate records all faults of d: after translation, d must be a valid ConfigPlatformForAppRequest, and it must have a name.
// Whether to refuse a configuration without rules is left to the platform.
func (d *AppDConfig) Validate(limits mp1.RuleLimits, faults *problem.InvalidParams) {
	mp1.CheckRequired("appName", d.AppName, MaxAppDName, faults)
	r := d.Request()
	r.Validate(limits, faults)
}

// Request translates d. The actions FORWARD_AS_IS and DUPLICATE_AS_IS become FORWARD_ENCAPSULATED and DUPLICATE_ENCAPSULATED,
// the address types IPv4 and IPv6 become IP_V4 and IP_V6; values of MEC 011 are unchanged. An empty list of filters becomes one
// filter that matches all packets; rules without a state become ACTIVE.
//
// EdgeGallery's MEPM also sends members that it has no value for: a qCI, dSCP, tC or ttl of 0 and an empty destination
// interface count as absent. Prefixes with bits set beyond their length, which EdgeGallery accepts, are masked.
func (d *AppDConfig) Request() ConfigPlatformForAppRequest {
	r := ConfigPlatformForAppRequest{
		AppName:        d.AppName,
		AppTrafficRule: append([]mp1.TrafficRule(nil), d.AppTrafficRule...),
		AppDNSRule:     append([]mp1.DNSRule(nil), d.AppDNSRule...),
	}
	for i := range r.AppTrafficRule {
		translateTrafficRule(&r.AppTrafficRule[i])
	}
	for i := range r.AppDNSRule {
		translateDNSRule(&r.AppDNSRule[i])
	}
	r.SetDefaults()
	return r
}

// translateTrafficRule translates a shallow copy of a rule in place; what the copy points to is shared with the original.
func translateTrafficRule(r *mp1.TrafficRule) {
	switch r.Action {
	case actionForwardAsIs:
		r.Action = mp1.ActionForwardEncapsulated
	case actionDuplicateAsIs:
		r.Action = mp1.ActionDuplicateEncapsulated
	case actionDuplicatedDecapsulated:
		r.Action = mp1.ActionDuplicateDecapsulated
	}
	r.TrafficFilter = slices.Clone(r.TrafficFilter)
	// An absent list is an oversight and must not match all packets.
	if r.TrafficFilter != nil && len(r.TrafficFilter) == 0 {
		r.TrafficFilter = []mp1.TrafficFilter{{}}
	}
	for i := range r.TrafficFilter {
		f := &r.TrafficFilter[i]
		f.SrcAddress, f.DstAddress = masked(f.SrcAddress), masked(f.DstAddress)
		// "ANY" is not a protocol name; it stands for any protocol.
		if slices.ContainsFunc(f.Protocol, func(p string) bool { return strings.EqualFold(p, "any") }) {
			f.Protocol = nil
		}
		f.QCI, f.DSCP, f.TC = unlessZero(f.QCI), unlessZero(f.DSCP), unlessZero(f.TC)
	}
	r.DstInterface = slices.DeleteFunc(slices.Clone(r.DstInterface), func(d mp1.DestinationInterface) bool {
		return (d.TunnelInfo == nil || d.TunnelInfo.Empty()) &&
			d.InterfaceType == "" && d.SrcMACAddress == "" && d.DstMACAddress == "" && d.DstIPAddress == ""
	})
}

// masked returns a copy of addresses in which the bits beyond the length of each prefix are cleared.
func masked(addresses []string) []string {
	addresses = slices.Clone(addresses)
	for i, s := range addresses {
		if p, err := netip.ParsePrefix(s); err == nil && p != p.Masked() {
			addresses[i] = p.Masked().String()
		}
	}
	return addresses
}

func translateDNSRule(r *mp1.DNSRule) {
	switch r.IPAddressType {
	case addressIPv4:
		r.IPAddressType = mp1.IPv4
	case addressIPv6:
		r.IPAddressType = mp1.IPv6
	}
	if r.TTL != nil && *r.TTL == 0 {
		r.TTL = nil
	}
}

// AppDConfigOf translates a configuration to EdgeGallery's format, as far as that can represent it. No list is null.
func AppDConfigOf(r ConfigPlatformForAppRequest, supportsMp1 bool) AppDConfig {
	d := AppDConfig{
		AppTrafficRule: append([]mp1.TrafficRule{}, r.AppTrafficRule...),
		AppDNSRule:     append([]mp1.DNSRule{}, r.AppDNSRule...),
		AppSupportMp1:  supportsMp1,
		AppName:        r.AppName,
	}
	for i := range d.AppTrafficRule {
		switch rule := &d.AppTrafficRule[i]; rule.Action {
		case mp1.ActionForwardEncapsulated:
			rule.Action = actionForwardAsIs
		case mp1.ActionDuplicateEncapsulated:
			rule.Action = actionDuplicateAsIs
		}
	}
	return d
}

// ConfigResult is the state of an EdgeGallery task.
type ConfigResult string

// The results. PROCESSING is not final.
const (
	ConfigProcessing ConfigResult = "PROCESSING"
	ConfigSuccess    ConfigResult = "SUCCESS"
	ConfigFailure    ConfigResult = "FAILURE"
)

// TaskProgress is an operation in EdgeGallery's format.
type TaskProgress struct {
	TaskID        string       `json:"taskId"`
	AppInstanceID string       `json:"appInstanceId"`
	ConfigResult  ConfigResult `json:"configResult"`
	// ConfigPhase is a percentage in digits, "0" to "100": "100" for SUCCESS and "0" for FAILURE.
	ConfigPhase string `json:"configPhase"`
	// Detailed says why the operation failed.
	Detailed string `json:"Detailed"`
}

// TaskProgressOf translates an operation.
func TaskProgressOf(op AppLcmOpOcc) TaskProgress {
	t := TaskProgress{
		TaskID:        op.ID,
		AppInstanceID: op.AppInstanceID,
		ConfigResult:  ConfigProcessing,
		ConfigPhase:   strconv.Itoa(op.Percentage),
		Detailed:      op.Detail,
	}
	switch op.OperationState {
	case OperationCompleted:
		t.ConfigResult, t.ConfigPhase = ConfigSuccess, "100"
	case OperationFailed:
		t.ConfigResult, t.ConfigPhase = ConfigFailure, "0"
	}
	return t
}

// PlatformCapability is a service in EdgeGallery's format.
type PlatformCapability struct {
	// CapabilityID is the serInstanceId, CapabilityName the serName.
	CapabilityID   string `json:"capabilityId"`
	CapabilityName string `json:"capabilityName"`
	// Status is the state of the service.
	Status  mp1.ServiceState `json:"status"`
	Version string           `json:"version"`
	// Consumers are the app instances that use the service. The list is never null.
	Consumers []CapabilityConsumer `json:"consumers"`
}

// CapabilityConsumer is an app instance that uses a service.
type CapabilityConsumer struct {
	ApplicationInstanceID string `json:"applicationInstanceId"`
}
