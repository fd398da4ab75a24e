package match

import (
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// Domain is a domain below which services and instances have host names, in its canonical form; "" is none.
type Domain string

// Place is what a host below a Domain stands for. The zero Place is nothing: no service can have that host.
type Place struct {
	// Label is the label that names a service, in whatever case the client wrote it, or with Instance the id of an instance.
	Label    string
	Instance bool
}

// Below looks at the host of a request, as it came: with or without a port, in any case, with or without a dot at its end. below reports
// whether it is a name below the domain, which the domain itself is not: {serName}.{domain} or {serInstanceId}.instances.{domain}, else
// the place is nothing. It allocates nothing.
func (d Domain) Below(host string) (place Place, below bool) {
	if d == "" {
		return Place{}, false
	}
	name, port, _ := strings.Cut(host, ":") // also of IPv6 addresses, which are below no domain
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

// Service is the host name of a service whose serName in lower case is label.
func (d Domain) Service(label string) string { return label + "." + string(d) }

// Instance is the host name of the instance with an id.
func (d Domain) Instance(id string) string {
	return id + "." + gateway.InstancesLabel + "." + string(d)
}

// cut returns what stands in front of the domain in a name.
func (d Domain) cut(name string) (front string, ok bool) {
	n := len(name) - len(d) - 1
	// Of as many bytes as the domain, which is ASCII, nothing else is equal to it but for its case.
	if n < 0 || name[n] != '.' || !strings.EqualFold(name[n+1:], string(d)) {
		return "", false
	}
	return name[:n], true
}
