// Package quota counts the calls of consumers in time windows, across all replicas of the gateway, and never admits more than a quota says.
//
// # How
//
// For each window of each quota, a record in etcd holds the number of calls that the replicas have taken. A replica takes several calls at
// a time, in a transaction on condition that the record is unchanged since it was last seen and that the limit is not exceeded. It admits
// calls from those it holds, without asking anyone, and takes more before they are used up. Calls that nobody asks for in a while, and
// those left when the process stops, are given back in the same way. Nothing carries over into the next window. Records expire by
// themselves, through leases that the records of a process share.
//
// # Never too many
//
// Let T be the number in a record, S the calls admitted by all replicas in its window, H the calls they hold and L the calls lost. Then
//
//	S + H + L = T <= limit
//
// holds from the first transaction on. A transaction that takes n calls raises T and H by n, if T + n <= limit, and etcd commits it only if
// the record is still the one the sum was computed from. Admitting a call moves 1 from H to S. Calls that are given back leave H before the
// transaction begins, and leave T with it. If the response to a transaction is lost, etcd may or may not have committed it: the calls it
// was to take are not added to H, and those it was to give back do not return to H, so both count towards L. Calls held by a killed process
// move from H to L. As H and L are not negative, S <= limit.
//
// Once a limit is lowered below T, nothing more is taken, and a replica gives back what it holds before it admits another call.
//
// This holds whatever the clocks say, since it depends on records and not on time, as long as a record outlasts the last replica that
// believes itself to be in its window. Records are kept for five minutes after their windows end: the clocks of replicas may differ and be
// set back by that much, both together. A process whose clock is set back further does not follow it beyond that: its windows stay ahead of
// the clock until the process is restarted, and a metric says so.
//
// With gateway.AwayAllow, calls are let through uncounted while etcd is unavailable. This is the one exception, and it is opt-in.
//
// # How many may go unused
//
// A replica takes as many calls as it lacks to have A at hand. With F free calls and n replicas,
//
//	A = max(1, min(F/2n, max(W, R, min(64, F/8n))))
//
// where W is the number of calls waiting and R the number recently admitted per second. So a replica never holds more than half of its even
// share of the calls that were free when it took them; for a consumer not known to make many calls, it holds at most 64, and for others at
// most as many as they make in a second. (Whatever the rate, a replica writes a record about twice per second.)
//
// When a replica refuses a call, it holds none, and the record had none left within the last second, or when it was last seen if etcd is
// unavailable. The unused calls of a quota are therefore those that the other n - 1 replicas hold, at most A each, and L. Replicas that
// still have callers use theirs up. Those without callers give theirs back after three seconds if the window is a minute, and after thirty
// seconds otherwise; the others notice a second later. L is 0 unless etcd failed to answer, a clock was set back across the start of a
// window, or a process was killed, which costs at most A. So healthy replicas with callers use every call of a quota; a test checks this.
//
// # While etcd is unavailable
//
// Calls already held are used up. After that, calls are refused or let through, as their routes say. etcd is tried four times a second, by
// one transaction, for which only the call that needs it waits. No other call waits for an etcd that did not answer last time.
package quota
