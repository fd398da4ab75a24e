// Package follow builds the DNS server's table from etcd: from the DNS rules of all app instances, the records of the management API
// and, if configured, the registered services.
//
// A [Feed] observes every change; one goroutine builds the next table from all changes that have arrived in the meantime. While etcd
// is unavailable the last table stays in use.
package follow
