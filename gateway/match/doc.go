// Package match finds the static route of a request.
//
// A path is checked before any decision is made about it: [Path.Clean] refuses what servers are known to interpret differently, so that the
// path the gateway decides about is the path that the target serves. Paths are compared segment by segment, decoded and without the
// parameters that begin with ";": a rule for /admin also applies to /admin/ and /admin;a=b. The path is forwarded byte for byte as it was
// received: what was escaped stays escaped.
//
// Which of several matching routes wins does not depend on the order of their definition:
//
//   - the host: exact, then the wildcard with the longest name, then any;
//   - the path, from the left: a literal segment before "*" before "**", so a longer pattern comes before a shorter one;
//   - routes that name methods before those that do not;
//   - more conditions on header fields before fewer;
//   - the higher priority;
//   - the id that sorts first.
//
// If the route with the best host or path does not match the method or the header fields, the next one is tried.
package match
