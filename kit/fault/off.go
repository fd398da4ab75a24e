//go:build !faults

package fault

// Point marks a point at which tests can kill the process.
func Point(string) {}
