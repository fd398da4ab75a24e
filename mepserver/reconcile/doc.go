// Package reconcile delivers the rules of app instances to the systems that apply them: traffic rules to a data plane (Mp2), DNS
// rules to a DNS server. Such a system is called "the other side".
//
// A [Reconciler] handles one kind of rule, works only while its process leads, and is level-triggered: what counts is the set
// that should be in force now, not the changes that led to it. It hands a [Driver] the complete set of an app instance whenever
// that set may differ from the one last sent, and records the outcome in etcd, for operations and for its successor. A driver
// need not remember what it was given: everything is sent again at the start of a term, from time to time, and when the other
// side reports that it lost its state.
//
// A status record exists in etcd from before the first call for an app instance until the other side holds nothing of that
// instance any more. So the record alone shows what may have to be removed, wherever a process was killed.
package reconcile
