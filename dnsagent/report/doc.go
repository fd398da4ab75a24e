// Package report records what the DNS server answers, rule by rule, so that the MEC platform manager sees that its rules are in force
// (status/dnsagent/{appInstanceId}).
//
// Of several DNS servers on one etcd the one that leads reports, for itself: the others follow the same changes, and the metric
// mep_dns_table_revision shows how far each has come.
package report
