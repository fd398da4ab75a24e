package mp1

import (
	"fmt"
	"net/netip"

	"github.com/openmep/mep/api/problem"
)

// MaxDependencies is the maximum length of each list of services, features or transports that an app declares to need or offer.
const MaxDependencies = 256

// The kinds of NTPServerAddrType and AuthenticationOption (MEC 011 7.1.2.4).
const (
	NTPAddressIP   = "IP_ADDRESS"
	NTPAddressName = "DNS_NAME"

	NTPAuthNone         = "NONE"
	NTPAuthSymmetricKey = "SYMMETRIC_KEY"
	NTPAuthAutoKey      = "AUTO_KEY"
)

// The polling intervals of an NTP server, as powers of two in seconds (MEC 011 7.1.2.4).
const (
	MinNTPPolling = 3
	MaxNTPPolling = 17
)

var (
	operationActions = []OperationAction{ActionStopping, ActionTerminating}
	ntpAddressTypes  = []string{NTPAddressIP, NTPAddressName}
	ntpAuthOptions   = []string{NTPAuthNone, NTPAuthSymmetricKey, NTPAuthAutoKey}
)

// printedStopping is a misspelling of ActionStopping in the standard (MEC 011 7.1.4.3).
const printedStopping OperationAction = "STOPPPING"

// Check records all faults of s as the body of a subscription request. The standard requires AppInstanceID, but the path has it
// already: it may be absent. Whether it matches the path is for the platform to check.
func (s *AppTerminationNotificationSubscription) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if s.SubscriptionType != SubscriptionTypeAppTermination {
		c.Fault("subscriptionType", "must be "+SubscriptionTypeAppTermination)
	}
	c.uri("callbackReference", s.CallbackReference)
	c.text("appInstanceId", s.AppInstanceID, MaxName)
}

// Check records all faults of a. It replaces the misspelt action of the standard by ActionStopping.
func (a *AppTerminationConfirmation) Check(faults *problem.InvalidParams) {
	if a.OperationAction == printedStopping {
		a.OperationAction = ActionStopping
	}
	checkEnum(newChecker(faults), "operationAction", a.OperationAction, operationActions)
}

// Check records everything that is wrong with a.
func (a *AppReadyConfirmation) Check(faults *problem.InvalidParams) {
	if a.Indication != IndicationReady {
		newChecker(faults).Fault("indication", "must be "+IndicationReady)
	}
}

// Check records all faults of a as the body of a registration or its replacement (MEC 011 7.1.2.6).
func (a *AppInfo) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	c.required("appName", a.AppName, MaxName)
	c.text("appProvider", a.AppProvider, MaxName)
	if a.AppCategory != nil {
		a.AppCategory.check(c.in("appCategory"))
	}
	c.text("appDId", a.AppDID, MaxName)
	c.text("appInstanceId", a.AppInstanceID, MaxName)
	if a.Endpoint != nil {
		a.Endpoint.check(c.in("endpoint"))
	}
	if a.IsInsByMEC {
		a.checkManaged(c)
	} else if a.Endpoint == nil {
		c.Fault("endpoint", "is required unless isInsByMec is true")
	}
	CheckServiceDependencies("appServiceRequired", a.AppServiceRequired, faults)
	CheckServiceDependencies("appServiceOptional", a.AppServiceOptional, faults)
	CheckFeatureDependencies("appFeatureRequired", a.AppFeatureRequired, faults)
	CheckFeatureDependencies("appFeatureOptional", a.AppFeatureOptional, faults)
	c.opaque("appProfile", a.AppProfile)
}

// checkManaged checks the members of an instance that MEC management instantiated. Its needs are in the app descriptor and must
// not be repeated here.
func (a *AppInfo) checkManaged(c checker) {
	if a.AppDID == "" {
		c.Fault("appDId", "is required as isInsByMec is true")
	}
	if a.AppInstanceID == "" {
		c.Fault("appInstanceId", "is required as isInsByMec is true")
	}
	for _, list := range []struct {
		name string
		n    int
	}{
		{"appServiceRequired", len(a.AppServiceRequired)}, {"appServiceOptional", len(a.AppServiceOptional)},
		{"appFeatureRequired", len(a.AppFeatureRequired)}, {"appFeatureOptional", len(a.AppFeatureOptional)},
	} {
		if list.n > 0 {
			c.Fault(list.name, "must be absent as isInsByMec is true: the app's descriptor has it")
		}
	}
}

// checkList checks a list of at most MaxDependencies elements.
func checkList[T any](path string, list []T, faults *problem.InvalidParams, check func(*T, checker)) {
	c := newChecker(faults)
	if !c.atMost(path, len(list), MaxDependencies) {
		return
	}
	for i := range list {
		if c.full() {
			return
		}
		check(&list[i], c.item(path, i))
	}
}

// CheckServiceDependencies records all faults of the services that an app needs: a list called path with at most
// MaxDependencies elements.
func CheckServiceDependencies(path string, list []ServiceDependency, faults *problem.InvalidParams) {
	checkList(path, list, faults, (*ServiceDependency).check)
}

// CheckServiceDescriptors records all faults of the services that an app offers: a list called path with at most
// MaxDependencies elements.
func CheckServiceDescriptors(path string, list []ServiceDescriptor, faults *problem.InvalidParams) {
	checkList(path, list, faults, (*ServiceDescriptor).check)
}

// CheckFeatureDependencies records all faults of the features that an app needs: a list called path with at most
// MaxDependencies elements.
func CheckFeatureDependencies(path string, list []FeatureDependency, faults *problem.InvalidParams) {
	checkList(path, list, faults, (*FeatureDependency).check)
}

// CheckTransportDependencies records all faults of the transports that an app needs: a list called path with at most
// MaxDependencies elements.
func CheckTransportDependencies(path string, list []TransportDependency, faults *problem.InvalidParams) {
	checkList(path, list, faults, (*TransportDependency).check)
}

// Fault records a fault of the member called path, unless one is already recorded for it: a member whose type was refused is
// not also reported as missing.
func Fault(path, reason string, faults *problem.InvalidParams) {
	newChecker(faults).Fault(path, reason)
}

// CheckRequired records a fault if the member called path is absent, longer than limit characters or contains control
// characters.
func CheckRequired(path, value string, limit int, faults *problem.InvalidParams) {
	newChecker(faults).required(path, value, limit)
}

// CheckText records a fault if the member called path is longer than limit characters or contains control characters.
func CheckText(path, value string, limit int, faults *problem.InvalidParams) {
	newChecker(faults).text(path, value, limit)
}

// CheckOpaque records a fault if the member called path, which is carried unchanged, has more than MaxOpaque bytes.
func CheckOpaque(path string, value []byte, faults *problem.InvalidParams) {
	newChecker(faults).opaque(path, value)
}

// CheckEnum records a fault if the required member called path is not one of the values in among.
func CheckEnum[T ~string](path string, value T, among []T, faults *problem.InvalidParams) {
	checkEnum(newChecker(faults), path, value, among)
}

func (d *ServiceDependency) check(c checker) {
	c.required("serName", d.SerName, MaxName)
	if d.SerCategory != nil {
		d.SerCategory.check(c.in("serCategory"))
	}
	c.required("version", d.Version, MaxVersion)
	checkList(c.Path("serTransportDependencies"), d.SerTransportDependencies, c.Faults, (*TransportDependency).check)
	c.opaque("requestedPermissions", d.RequestedPermissions)
}

func (d *ServiceDescriptor) check(c checker) {
	c.required("serName", d.SerName, MaxName)
	if d.SerCategory != nil {
		d.SerCategory.check(c.in("serCategory"))
	}
	c.required("version", d.Version, MaxVersion)
	checkList(c.Path("transportsSupported"), d.TransportsSupported, c.Faults, (*TransportSupported).check)
}

func (d *FeatureDependency) check(c checker) {
	c.required("featureName", d.FeatureName, MaxName)
	c.required("version", d.Version, MaxVersion)
}

func (d *TransportDependency) check(c checker) {
	checkTransport(c, d.Transport, d.Serializers)
	if len(d.Labels) == 0 {
		c.Fault("labels", "must have at least one element")
	}
	c.eachText("labels", d.Labels, MaxName)
}

func (d *TransportSupported) check(c checker) { checkTransport(c, d.Transport, d.Serializers) }

func checkTransport(c checker, t *TransportDescriptor, serializers []SerializerType) {
	if t == nil {
		c.Fault("transport", "is required")
	} else {
		t.check(c.in("transport"))
	}
	if len(serializers) == 0 {
		c.Fault("serializers", "must have at least one element")
	}
	c.listLen("serializers", len(serializers))
	for i, s := range serializers {
		if i == MaxList || c.full() {
			return
		}
		c.item("serializers", i).required("", string(s), MaxVersion)
	}
}

func (t *TransportDescriptor) check(c checker) {
	c.required("type", string(t.Type), MaxVersion)
	c.required("protocol", t.Protocol, MaxVersion)
	c.required("version", t.Version, MaxVersion)
	if t.Security != nil && t.Security.OAuth2Info != nil {
		t.Security.OAuth2Info.check(c.in("security.oAuth2Info"))
	}
	c.opaque("implSpecificInfo", t.ImplSpecificInfo)
}

// Check records all faults of s.
func (s *NTPServer) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	checkEnum(c, "ntpServerAddrType", s.NTPServerAddrType, ntpAddressTypes)
	s.checkAddress(c)
	c.polling("minPollingInterval", s.MinPollingInterval)
	c.polling("maxPollingInterval", s.MaxPollingInterval)
	if s.MinPollingInterval > s.MaxPollingInterval {
		c.Fault("minPollingInterval", "must not be more than maxPollingInterval")
	}
	checkEnum(c, "authenticationOption", s.AuthenticationOption, ntpAuthOptions)
	switch symmetric := s.AuthenticationOption == NTPAuthSymmetricKey; {
	case symmetric && s.AuthenticationKeyNum == nil:
		c.Fault("authenticationKeyNum", "is required with SYMMETRIC_KEY")
	case !symmetric && s.AuthenticationKeyNum != nil:
		c.Fault("authenticationKeyNum", "must be absent unless authenticationOption is SYMMETRIC_KEY")
	}
}

func (c checker) polling(name string, n uint32) {
	if n < MinNTPPolling || n > MaxNTPPolling {
		c.Fault(name, fmt.Sprintf("must be %d to %d, not %d", MinNTPPolling, MaxNTPPolling, n))
	}
}

func (s *NTPServer) checkAddress(c checker) {
	_, err := netip.ParseAddr(s.NTPServerAddr)
	switch {
	case s.NTPServerAddr == "":
		c.Fault("ntpServerAddr", "is required")
	case s.NTPServerAddrType == NTPAddressIP:
		parsed(c, "ntpServerAddr", s.NTPServerAddr, ParseAddress)
	case s.NTPServerAddrType == NTPAddressName && (err == nil || !isDomainName(s.NTPServerAddr)):
		c.Fault("ntpServerAddr", "must be a domain name as ntpServerAddrType is DNS_NAME, not "+quote(s.NTPServerAddr))
	}
}

// Check records all faults of m.
func (m *PTPMaster) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if m.PTPMasterIPAddress == "" {
		c.Fault("ptpMasterIpAddress", "is required")
		return
	}
	parsed(c, "ptpMasterIpAddress", m.PTPMasterIPAddress, ParseAddress)
}
