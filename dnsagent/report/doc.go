// Package report records which DNS rules the DNS server answers, so that the MEC platform manager can see that its rules are in force
// (status/dnsagent/{appInstanceId}).
//
// If several DNS servers share one etcd, the leader reports, and for itself only: the others follow the same changes, and the metric
// mep_dns_table_revision shows how far each one is.
package report
