package main

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

// store writes the rules of a zone in the platform's format.
func (e *etcd) store(z *zone) error {
	_, err := share(managers, z.apps, func(w, app int) error {
		text, err := z.rules(app, unchanged, 0)
		if err == nil {
			_, err = e.of(w).Put(context.Background(), state.DNSRulesKey(z.app(app)), text)
		}
		return err
	})
	return err
}

// list reads all rules page by page, as a client does that keeps up with them, and returns the number of octets.
func (e *etcd) list() (octets int, err error) {
	const page = 100
	key, end := state.PrefixDNSRules, clientv3.GetPrefixRangeEnd(state.PrefixDNSRules)
	for {
		got, err := e.clients[0].Get(context.Background(), key, clientv3.WithRange(end), clientv3.WithLimit(page))
		if err != nil {
			return octets, err
		}
		for _, kv := range got.Kvs {
			octets += len(kv.Value)
			key = string(kv.Key) + "\x00"
		}
		if !got.More {
			return octets, nil
		}
	}
}
