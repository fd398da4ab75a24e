package mm5

import (
	"fmt"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

// Bounds on the members of requests.
const (
	// MaxAppName is the maximum length of an app name, in bytes.
	MaxAppName = 128
	// MaxGracefulTimeout is the maximum time that an app may be given to stop, in seconds: a day.
	MaxGracefulTimeout = 24 * 60 * 60
)

var (
	stopTypes         = []StopType{Forceful, Graceful}
	operationalStates = []OperationalState{Started, Stopped}
)

// SetDefaults sets absent members to their defaults: rules without a state become ACTIVE.
func (r *ConfigPlatformForAppRequest) SetDefaults() {
	for i := range r.AppTrafficRule {
		r.AppTrafficRule[i].SetDefaults()
	}
	for i := range r.AppDNSRule {
		r.AppDNSRule[i].SetDefaults()
	}
}

// Check calls SetDefaults and records all faults of r. It does not apply limits; see Validate.
func (r *ConfigPlatformForAppRequest) Check(faults *problem.InvalidParams) {
	r.Validate(mp1.RuleLimits{}, faults)
}

// Validate is like Check but also applies the limits to the rules.
func (r *ConfigPlatformForAppRequest) Validate(limits mp1.RuleLimits, faults *problem.InvalidParams) {
	r.SetDefaults()
	if len(r.AppName) > MaxAppName {
		mp1.Fault("appName", fmt.Sprintf("is longer than %d bytes", MaxAppName), faults)
	}
	mp1.CheckText("appName", r.AppName, MaxAppName, faults)
	mp1.CheckText("appDId", r.AppDID, mp1.MaxName, faults)
	mp1.CheckServiceDependencies("appServiceRequired", r.AppServiceRequired, faults)
	mp1.CheckServiceDependencies("appServiceOptional", r.AppServiceOptional, faults)
	mp1.CheckServiceDescriptors("appServiceProduced", r.AppServiceProduced, faults)
	mp1.CheckFeatureDependencies("appFeatureRequired", r.AppFeatureRequired, faults)
	mp1.CheckFeatureDependencies("appFeatureOptional", r.AppFeatureOptional, faults)
	mp1.CheckTransportDependencies("transportDependencies", r.TransportDependencies, faults)
	mp1.CheckTrafficRules("appTrafficRule", r.AppTrafficRule, limits, faults)
	mp1.CheckDNSRules("appDNSRule", r.AppDNSRule, limits, faults)
	mp1.CheckOpaque("appLatency", r.AppLatency, faults)
	mp1.CheckOpaque("userContextTransferCapability", r.UserContextTransferCapability, faults)
	mp1.CheckOpaque("appNetworkPolicy", r.AppNetworkPolicy, faults)
}

// Check records all faults of r. It removes a time-out of 0, which means the same as none.
func (r *TerminateAppRequest) Check(faults *problem.InvalidParams) {
	r.GracefulTerminationTimeout = unlessZero(r.GracefulTerminationTimeout)
	mp1.CheckEnum("terminationType", r.TerminationType, stopTypes, faults)
	checkTimeout("gracefulTerminationTimeout", r.GracefulTerminationTimeout, "terminationType", r.TerminationType, faults)
}

// Check records all faults of r. It removes a time-out of 0, which means the same as none, and sets the type of a stop without
// one to FORCEFUL.
func (r *OperateAppRequest) Check(faults *problem.InvalidParams) {
	if r.ChangeStateTo == Stopped && r.StopType == "" {
		r.StopType = Forceful
	}
	r.GracefulStopTimeout = unlessZero(r.GracefulStopTimeout)
	mp1.CheckEnum("changeStateTo", r.ChangeStateTo, operationalStates, faults)
	if r.StopType != "" {
		mp1.CheckEnum("stopType", r.StopType, stopTypes, faults)
		if r.ChangeStateTo == Started {
			mp1.Fault("stopType", "must be absent unless changeStateTo is STOPPED", faults)
		}
	}
	checkTimeout("gracefulStopTimeout", r.GracefulStopTimeout, "stopType", r.StopType, faults)
}

// unlessZero returns n, or nil when it points to 0.
func unlessZero(n *int) *int {
	if n != nil && *n == 0 {
		return nil
	}
	return n
}

// checkTimeout checks a time-out in seconds, which is only allowed when the member called typeName is GRACEFUL.
func checkTimeout(name string, seconds *int, typeName string, t StopType, faults *problem.InvalidParams) {
	switch {
	case seconds == nil:
	case t != Graceful:
		mp1.Fault(name, "must be absent unless "+typeName+" is GRACEFUL", faults)
	case *seconds < 0 || *seconds > MaxGracefulTimeout:
		mp1.Fault(name, fmt.Sprintf("must be 1 to %d seconds, or absent for the platform's default, not %d",
			MaxGracefulTimeout, *seconds), faults)
	}
}
