// Package follow makes the table of the DNS server out of what is in etcd: the DNS rules of all app instances, the records that came
// over the management and, when it is asked for, registered services.
//
// A [Feed] hears of every change, and one goroutine of it makes the next table of all changes that have come in meanwhile. What was
// last read stays in use while etcd is away.
package follow
