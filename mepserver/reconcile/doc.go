// Package reconcile brings the rules of app instances to those who apply them: traffic rules to a data plane (Mp2), DNS rules to
// a DNS server.
//
// A [Reconciler] works for one kind of rules, only while its process leads, and by level: what counts is the set that is to be
// in force now, not the changes that led to it. It hands a [Driver] the whole set of an app instance whenever that may differ from
// what the driver was last told, and records in etcd what came of it, for operations and for its successor. A driver never has to
// remember what it was told: at the start of a term, from time to time, and when the other side says that it lost its state,
// it is told everything again.
//
// A status record stands in etcd from before the first call for an app instance until the other side holds nothing of it any
// more. So the record alone tells what may have to be taken back, wherever a process was killed.
package reconcile
