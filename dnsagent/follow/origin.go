package follow

import (
	"encoding/binary"

	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/miekg/dns"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// Served describes which rules of an app instance are being answered.
type Served struct {
	// Generation is the generation of the rules.
	Generation int64
	// Applied holds the IDs of the rules that are answered. Failed maps the IDs of other rules to the reason why they are not.
	Applied []string
	Failed  map[string]string
}

// made is what an origin contributes to the table.
type made struct {
	records []table.Record
	served  *Served // for rules only
}

// ruleSet holds the members of state.DNSRules that are needed here.
type ruleSet struct {
	V          int   `json:"v"`
	Generation int64 `json:"generation"`
	Running    bool  `json:"running"`
	Rules      []struct {
		Declared rule  `json:"declared"`
		Changed  *rule `json:"changed"`
	} `json:"rules"`
}

type rule struct {
	ID      string        `json:"dnsRuleId"`
	Name    string        `json:"domainName"`
	Address netip.Addr    `json:"ipAddress"`
	TTL     *uint32       `json:"ttl"`
	State   mp1.RuleState `json:"state"`
}

// makeRules makes the records of the active rules of an app instance.
func makeRules(cfg *Config, app string, value []byte) (made, error) {
	var set ruleSet
	if err := decode(value, &set, &set.V); err != nil {
		return made{}, err
	}
	m := made{served: &Served{Generation: set.Generation}}
	if !set.Running {
		return m, nil
	}
	m.records = make([]table.Record, 0, len(set.Rules))
	m.served.Applied = make([]string, 0, len(set.Rules))
	for i := range set.Rules {
		r := &set.Rules[i].Declared
		if set.Rules[i].Changed != nil {
			r = set.Rules[i].Changed
		}
		if r.State != mp1.RuleActive {
			continue
		}
		name, err := wire.ParseName(r.Name)
		if err == nil && !r.Address.IsValid() {
			err = errors.New("it has no address")
		}
		if err != nil {
			if m.served.Failed == nil {
				m.served.Failed = make(map[string]string)
			}
			m.served.Failed[r.ID] = err.Error()
			continue
		}
		ttl := cfg.TTL
		if r.TTL != nil {
			ttl = *r.TTL
		}
		rec := Address(name, r.Address, ttl, r.ID)
		rec.View = cfg.viewOf(app, name)
		m.records = append(m.records, rec)
		m.served.Applied = append(m.served.Applied, r.ID)
	}
	return m, nil
}

// Address returns an A or AAAA record.
func Address(name wire.Name, addr netip.Addr, ttl uint32, id string) table.Record {
	r := table.Record{Name: name, Type: dns.TypeAAAA, Data: string(addr.AsSlice()), TTL: ttl, ID: id}
	if len(r.Data) == net.IPv4len {
		r.Type = dns.TypeA
	}
	return r
}

// makeRecord makes the table records of a record of the management API.
func makeRecord(cfg *Config, id string, value []byte) (made, error) {
	rec, err := records.Decode(state.PrefixDNSRecords+id, value, 0)
	if err != nil {
		return made{}, err
	}
	view, ok := cfg.viewNamed(rec.View)
	if !ok {
		return made{}, nil // its view is not configured: nobody may see it
	}
	list, err := records.Wire(rec, view)
	return made{records: list}, err
}

// service holds the members of state.Service that are needed here.
type service struct {
	V    int `json:"v"`
	Info struct {
		Name      string           `json:"serName"`
		State     mp1.ServiceState `json:"state"`
		Transport struct {
			Endpoint mp1.EndPointInfo `json:"endpoint"`
		} `json:"transportInfo"`
	} `json:"info"`
}

// makeService makes the records of a registered service: its addresses at the service name and at the name of the instance, which
// is the target of the SRV records. Addresses with a port other than the first have a name of their own, p{port}-{instance}, so
// that every address of an SRV target serves the port.
func makeService(cfg *Config, id string, value []byte) (made, error) {
	var s service
	if err := decode(value, &s, &s.V); err != nil {
		return made{}, err
	}
	name, ok := serviceName(s.Info.Name, cfg.ServiceZone)
	if !ok || s.Info.State != mp1.StateActive {
		return made{}, nil
	}
	var m made
	list := endpoints(&s.Info.Transport.Endpoint)
	for _, e := range list {
		label := id
		if e.port != list[0].port {
			label = fmt.Sprintf("p%d-%s", e.port, id)
		}
		target, ok := name.Child(label)
		if !ok {
			return made{}, nil
		}
		if addr, err := netip.ParseAddr(e.host); err == nil {
			addr = addr.Unmap().WithZone("")
			m.records = append(m.records, Address(name, addr, cfg.TTL, id), Address(target, addr, cfg.TTL, id))
		} else if target, err = wire.ParseName(e.host); err != nil {
			continue
		}
		data := string(binary.BigEndian.AppendUint16([]byte{0, 0, 0, 0}, e.port)) + string(target)
		m.records = append(m.records, table.Record{Name: name, Type: dns.TypeSRV, Data: data, TTL: cfg.TTL, ID: id})
	}
	for i := range m.records {
		m.records[i].Weak = true // apps choose the names
	}
	return m, nil
}

// labelCharacters are the characters of labels that people and programs can be expected to handle.
const labelCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// serviceName returns the domain name of a service in its zone: serName below the zone, if that is a valid name.
func serviceName(serName string, zone wire.Name) (wire.Name, bool) {
	for label := range strings.SplitSeq(serName, ".") {
		if label == "" || strings.Trim(label, labelCharacters) != "" {
			return "", false
		}
	}
	name, err := wire.ParseName(serName + "." + zone.String())
	return name, err == nil
}

type endpoint struct {
	host string
	port uint16
}

func endpoints(info *mp1.EndPointInfo) []endpoint {
	var list []endpoint
	for _, a := range info.Addresses {
		list = append(list, endpoint{a.Host, uint16(a.Port)}) //nolint:gosec // checked on registration
	}
	for _, s := range info.URIs {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			continue
		}
		port := map[string]uint64{"http": 80, "ws": 80, "https": 443, "wss": 443}[u.Scheme]
		if p := u.Port(); p != "" {
			if port, err = strconv.ParseUint(p, 10, 16); err != nil {
				continue
			}
		}
		if port > 0 {
			list = append(list, endpoint{u.Hostname(), uint16(port)})
		}
	}
	return list
}

// decode reads a stored value of which only some members are needed. version points to the schema version in into.
func decode(value []byte, into any, version *int) error {
	if err := json.Unmarshal(value, into); err != nil {
		return err
	}
	if *version < 1 || *version > state.SchemaVersion {
		return fmt.Errorf("schema version %d is not one this release knows (1 to %d)", *version, state.SchemaVersion)
	}
	return nil
}
