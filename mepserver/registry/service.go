// Package registry registers and finds MEC services (MEC 011 5.2.4 to 5.2.6).
//
// Registrations are stored in etcd. Reads use the watched copy and never wait. A write is one transaction, and is answered
// once this process's own copy shows it.
package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"
	"unique"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
)

// APIRoot is the path of the service management API below a mount prefix.
const APIRoot = "/mec_service_mgmt/v1"

// Service is a registered service as this process holds it: the members it is found by, and its JSON. The rest is decoded on
// demand, because a process holds thousands of services and changes few. A Service is shared and must not be modified.
type Service struct {
	// AppInstanceID is the app that offers the service, ID its serInstanceId.
	AppInstanceID, ID string
	// Name is its serName and CategoryID the id of its serCategory, "" if it has none.
	Name, CategoryID string
	// State and Scope are those of its ServiceInfo.
	State mp1.ServiceState
	Scope mp1.LocalityType
	// ConsumedLocalOnly is that of its ServiceInfo.
	ConsumedLocalOnly bool
	// Interval is the heartbeat interval that applies in seconds, 0 if no heartbeats are expected; Asked is what the app
	// proposed.
	Interval, Asked int
	// Beat is the last recorded heartbeat, Suspended when the service was suspended.
	Beat, Suspended time.Time

	modRevision int64
	// rendered is the service as JSON, without the base URL of its links, which belongs at first and at other; other is the
	// end if there is no liveness link. Up to info it is the stored ServiceInfo, without its closing brace.
	rendered           []byte
	info, first, other int
	// endpoint is the place of the endpoint in rendered; nil until it is needed.
	endpoint atomic.Pointer[place]
}

// Item is a service with its revisions.
type Item = watched.Item[*Service]

// Snapshot is the state of the registry at one revision.
type Snapshot = watched.Snapshot[*Service]

// Change is a change of a service.
type Change = watched.Change[*Service]

// Path returns the path of the service resource below a mount prefix.
func (s *Service) Path() string {
	return APIRoot + "/applications/" + s.AppInstanceID + "/services/" + s.ID
}

// ETag returns the entity-tag of the service resource, with quotes.
func (s *Service) ETag() string { return `"` + strconv.FormatInt(s.modRevision, 36) + `"` }

// Monitored reports whether the platform expects heartbeats of the service.
func (s *Service) Monitored() bool { return s.Interval > 0 }

// Info decodes the service as stored: without isLocal and _links.
func (s *Service) Info() (mp1.ServiceInfo, error) {
	var info mp1.ServiceInfo
	err := json.Unmarshal(s.infoJSON(), &info)
	return info, err
}

func (s *Service) infoJSON() []byte {
	return append(bytes.Clone(s.rendered[:s.info]), '}')
}

// Record returns the record that etcd holds.
func (s *Service) Record() (state.Service, error) {
	info, err := s.Info()
	rec := state.Service{Version: state.Current(), Info: info, Beat: s.Beat, Suspended: s.Suspended}
	if s.Monitored() {
		asked := s.Asked
		rec.Asked = &asked
	}
	return rec, err
}

// Differs reports how a service differs from an earlier state of itself: in anything but its state, and in its state.
func (s *Service) Differs(before *Service) (attributes, stateChanged bool) {
	stateChanged = s.State != before.State
	if !stateChanged {
		return !bytes.Equal(s.rendered[:s.info], before.rendered[:before.info]), false
	}
	now, err := s.Info()
	was, berr := before.Info()
	if err != nil || berr != nil {
		return true, true
	}
	was.State = now.State
	return !reflect.DeepEqual(now, was), true
}

// View says how a service is shown to a reader.
type View struct {
	// Base is the start of links: scheme, authority and mount prefix.
	Base string
	// Gateway is the gateway that consumers go through; the zero Gateway shows them the service's own endpoint. Owner is the
	// app that reads, which sees its own services as it registered them.
	Gateway Gateway
	Owner   string
}

// AppendJSON appends the service as a JSON object. The reader is on this MEC host, so isLocal is true (every service of this
// store was registered on this host).
func (s *Service) AppendJSON(dst []byte, v View) []byte {
	if endpoint, from, to := s.advertised(v); endpoint != "" {
		dst = append(dst, s.rendered[:from]...)
		dst = append(dst, endpointHead...)
		dst = append(dst, endpoint...)
		dst = append(dst, endpointTail...)
		dst = append(dst, s.rendered[to:s.first]...)
	} else {
		dst = append(dst, s.rendered[:s.first]...)
	}
	dst = append(dst, v.Base...)
	dst = append(dst, s.rendered[s.first:s.other]...)
	if s.other < len(s.rendered) {
		dst = append(dst, v.Base...)
		dst = append(dst, s.rendered[s.other:]...)
	}
	return dst
}

// JSONLen returns the number of bytes AppendJSON appends.
func (s *Service) JSONLen(v View) int {
	n := len(s.rendered) + len(v.Base)
	if s.other < len(s.rendered) {
		n += len(v.Base)
	}
	if endpoint, from, to := s.advertised(v); endpoint != "" {
		n += len(endpointHead) + len(endpoint) + len(endpointTail) - (to - from)
	}
	return n
}

// decode makes a Service from its record in etcd.
func decode(key string, value []byte, modRevision int64) (*Service, error) {
	return Decode(state.PrefixServices, key, value, modRevision)
}

// Decode makes a Service from a record below prefix: that of the registered services or that of the removed ones.
func Decode(prefix, key string, value []byte, modRevision int64) (*Service, error) {
	app, id, err := state.SplitKey(prefix, key)
	if err != nil {
		return nil, err
	}
	h, err := state.DecodeServiceHead(value)
	if err != nil {
		return nil, err
	}
	s := &Service{
		AppInstanceID: app, ID: id,
		Name: h.SerName, CategoryID: unique.Make(h.CategoryID).Value(),
		State: mp1.ServiceState(unique.Make(string(h.State)).Value()), Scope: mp1.LocalityType(unique.Make(string(h.Scope)).Value()),
		ConsumedLocalOnly: h.ConsumedLocalOnly, Interval: h.Interval, Asked: h.Asked, Beat: h.Beat, Suspended: h.Suspended,
		modRevision: modRevision,
	}
	s.render(h.Info)
	return s, nil
}

// render adds the members that only responses have.
func (s *Service) render(info []byte) {
	path := s.Path()
	size := len(info) + len(`,"isLocal":true,"_links":{"self":{"href":"`) + len(path) + len(`"}}}`)
	if s.Monitored() {
		size += len(`,"liveness":{"href":"`) + len(path) + len(`/liveness"}`)
	}
	out := make([]byte, 0, size)
	out = append(out, info[:len(info)-1]...)
	s.info = len(out)
	out = append(out, `,"isLocal":true,"_links":{"self":{"href":"`...)
	s.first = len(out)
	out = append(out, path...)
	if s.Monitored() {
		out = append(out, `"},"liveness":{"href":"`...)
		s.other = len(out)
		out = append(out, path...)
		out = append(out, `/liveness"}}}`...)
	} else {
		out = append(out, `"}}}`...)
		s.other = len(out)
	}
	s.rendered = out
}

// encodeInfo encodes a ServiceInfo as it is stored.
func encodeInfo(info *mp1.ServiceInfo) ([]byte, error) {
	b, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode service %s: %w", info.SerInstanceID, err)
	}
	return b, nil
}
