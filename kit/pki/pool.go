package pki

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

// pool is a set of CAs, with the bytes it was parsed from.
type pool struct {
	pem      [][]byte
	cas      *x509.CertPool
	notAfter time.Time
}

// followPool returns a follower of files that hold CAs.
func followPool(name string, files []string, e *env) *follower[pool] {
	var last *pool
	return &follower[pool]{
		name: name, expires: func(p *pool) time.Time { return p.notAfter }, now: e.now, log: e.log, metrics: e.metrics,
		fetch: func(time.Time) (*pool, error) {
			read := make([][]byte, 0, len(files))
			for _, file := range files {
				data, err := readFile(file)
				if err != nil {
					return nil, err
				}
				read = append(read, data)
			}
			if last != nil && slices.EqualFunc(last.pem, read, bytes.Equal) {
				return last, nil
			}
			next, err := parsePool(files, read)
			if err != nil {
				return nil, err
			}
			last = next
			return next, nil
		},
	}
}

func parsePool(files []string, data [][]byte) (*pool, error) {
	p := &pool{pem: data, cas: x509.NewCertPool()}
	for i, file := range files {
		certs, err := parseCertificates(file, data[i])
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			p.cas.AddCert(c)
			if p.notAfter.IsZero() || c.NotAfter.Before(p.notAfter) {
				p.notAfter = c.NotAfter
			}
		}
	}
	return p, nil
}
