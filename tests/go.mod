module github.com/openmep/mep/tests

go 1.26.0

require (
	github.com/openmep/mep/api v0.0.0
	github.com/openmep/mep/kit v0.0.0
	github.com/openmep/mep/mep v0.0.0
	github.com/openmep/mep/mepserver v0.0.0
)

replace github.com/openmep/mep/api => ../api

replace github.com/openmep/mep/kit => ../kit

replace github.com/openmep/mep/mepserver => ../mepserver

replace github.com/openmep/mep/mep => ../mep
