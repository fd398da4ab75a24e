package watched

import "go.etcd.io/etcd/api/v3/mvccpb"

// paging finds out how many keys a page of a list may have: records differ in size by four orders of magnitude, and a message of etcd's
// has a bound.
type paging struct{ limit, most int64 }

const (
	// firstPage is what a list begins with, not knowing how large the records are.
	firstPage = 100
	// pageBytes is how large a page should be. It is a small part of what a message may be.
	pageBytes = 4 << 20
)

func newPaging(most int64) *paging { return &paging{limit: min(firstPage, most), most: most} }

// adapt chooses the size of the next page by what was on the last one. It grows by no more than ten times: the next may differ.
func (p *paging) adapt(kvs []*mvccpb.KeyValue) {
	var bytes int64
	for _, kv := range kvs {
		bytes += int64(len(kv.Key) + len(kv.Value))
	}
	if bytes == 0 {
		return
	}
	fits := pageBytes * int64(len(kvs)) / bytes
	p.limit = max(1, min(fits, 10*p.limit, p.most))
}

// smaller chooses a smaller page after one that was too large; false when it was the smallest.
func (p *paging) smaller() bool {
	if p.limit <= 1 {
		return false
	}
	p.limit /= 4
	p.limit = max(1, p.limit)
	return true
}
