// Package match finds the static route of a request.
//
// A path is made clean before anything looks at it: [Path.Clean] refuses what servers are known to read in different ways, so that the
// gateway cannot decide about one path and what it passes it to serve another. What is left is compared segment by segment, decoded,
// and without the parameters that a ";" begins: a rule for /admin holds for /admin/ and /admin;a=b too. What is passed on is what came,
// byte by byte: what was escaped stays escaped.
//
// Which of several routes that take a request wins does not depend on the order they were given in:
//
//   - the host: exact, then the wildcard with the longest name, then any;
//   - the path, from the left: a literal segment before "*" before "**", so that a longer pattern comes before a shorter one;
//   - routes that name methods before those that do not;
//   - more conditions on header fields before fewer;
//   - the higher priority;
//   - the id that comes first.
//
// A route that has the best host or path but does not take the method or the header fields leaves the request to the next.
package match
