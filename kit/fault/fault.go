// Package fault marks points between two steps of the platform's work at which tests can kill a process.
//
// A point does nothing, and costs nothing, unless the program is built with the tag "faults": then a process that reaches
// the point named by the environment variable MEP_FAULT is killed at once, as by kill -9.
package fault
