// Package quota counts the calls of consumers in windows of time, over all replicas of the gateway: never more are admitted than a
// quota says.
//
// # How
//
// For each window of each quota there is a record in etcd: how many calls the replicas have taken of it. A replica takes several at
// a time, with a transaction on condition that the record is still as it was seen and that no more are taken than the limit; it
// admits calls from what it holds, without asking anybody; and before that is used up it takes more. What nobody asked for in a
// while, and what is left when the process stops, it gives back in the same way. Nothing carries over into the next window. Records
// end by themselves, with leases that records of a process share.
//
// # Never too many
//
// Let T be what a record says, S the calls admitted by all replicas in its window, H what they hold and L what was lost. Then
//
//	S + H + L = T <= limit
//
// holds from the first transaction on. One that takes n raises T and H by n, if T + n <= limit, and etcd makes it only on the record
// its sum was made from. Admitting a call moves 1 from H to S. What is given back leaves H before the transaction begins, and T with
// it. When the answer to a transaction is lost, etcd may have made it or not: what it was to take does not come to H, what it was
// to give back does not return there, so that both count as L. What a killed process held moves from H to L. As H and L are not
// negative, S <= limit.
//
// A limit that is lowered below what was taken is one from which nothing is taken any more; what a replica holds at that time it
// gives back before it admits another call.
//
// This holds for any clocks, since it is about records and not about time, as long as a record outlasts the last replica that
// believes to be in its window. Records are kept for five minutes longer than their windows: by so much may the clocks of
// replicas differ and be set back, both together. A process whose clock is set back further does not follow beyond that: its
// windows are ahead of the clock until it is started again, and it says so in a metric.
//
// With gateway.AwayAllow, calls are let through uncounted while etcd is away. That is the one exception, and it is asked for.
//
// # How many may be missing
//
// A replica takes at a time what is missing from A calls at hand, where of F free ones, with n replicas,
//
//	A = max(1, min(F/2n, max(W, R, min(64, F/8n))))
//
// W being the calls that wait and R those admitted per second lately. So a replica never holds more than half of its even share of
// what was free when it took; for a consumer that is not known to make many calls not more than 64; and for others not more than
// it makes in a second. (A record is written about twice per second and replica at any rate.)
//
// When a call is refused, the replica that refuses it holds nothing, and the record had nothing left within the last second, or
// when it was seen last if etcd is away. The calls that are not made of a quota are therefore those the other n - 1 replicas hold, A
// each at most, and L. Those who still have callers use theirs up; those who have none give back after three seconds, where the
// window is a minute, or thirty seconds, and are heard of a second later. L is 0 unless etcd failed to answer, a clock was set back
// over the beginning of a window, or a process was killed, which costs A at most. So replicas that are well and have callers make
// every call of a quota; a test holds them to it.
//
// # While etcd is away
//
// What is held is used up. Then calls are refused, or let through, as their routes say. It is tried four times a second, by
// one transaction, for which the call waits that needs it. Nobody else waits for an etcd that did not answer the last time.
package quota
