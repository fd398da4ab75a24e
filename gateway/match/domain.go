package match

import (
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// Domain is a domain below which services and instances have host names, in canonical form; "" means none.
type Domain string

// Place is the service or instance that a host below a Domain stands for. The zero Place stands for neither: no service can have that host.
type Place struct {
	// Label is the label of a service, in the case that the client used, or, if Instance is set, the id of an instance.
	Label    string
	Instance bool
}

// Below parses the host of a request as received: with or without a port, in any case, with or without a trailing dot. below reports
// whether the host is a name below the domain (the domain itself is not). The place is the zero Place unless the name is {serName}.{domain}
// or {serInstanceId}.instances.{domain}. Below does not allocate.
func (d Domain) Below(host string) (place Place, below bool) {
	if d == "" {
		return Place{}, false
	}
	name, port, _ := strings.Cut(host, ":") // IPv6 addresses are cut, too, but are below no domain
	label, below := d.cut(strings.TrimSuffix(name, "."))
	if !below || strings.Trim(port, "0123456789") != "" {
		return Place{}, below
	}
	if id, instance := Domain(gateway.InstancesLabel).cut(label); instance {
		place = Place{Label: id, Instance: true}
	} else {
		place = Place{Label: label}
	}
	if !gateway.IsLabel(place.Label) {
		return Place{}, true
	}
	return place, true
}

// Service returns the host name of a service; label is its serName in lower case.
func (d Domain) Service(label string) string { return label + "." + string(d) }

// Instance returns the host name of the instance with the given id.
func (d Domain) Instance(id string) string {
	return id + "." + gateway.InstancesLabel + "." + string(d)
}

// cut returns the part of a name in front of the domain.
func (d Domain) cut(name string) (front string, ok bool) {
	n := len(name) - len(d) - 1
	// The domain is ASCII: no other text of the same number of bytes is equal to it under case folding.
	if n < 0 || name[n] != '.' || !strings.EqualFold(name[n+1:], string(d)) {
		return "", false
	}
	return name[:n], true
}
