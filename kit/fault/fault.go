// Package fault names the points between two steps of the platform's work, so that tests can end a process there.
//
// A point does nothing, and costs nothing, unless the program is built with the tag "faults": then a process that reaches
// the point named by the environment variable MEP_FAULT is killed on the spot, as by kill -9.
package fault
