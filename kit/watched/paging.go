package watched

import "go.etcd.io/etcd/api/v3/mvccpb"

// paging chooses the number of keys on a page of a list: record sizes differ by four orders of magnitude, and the size of an etcd
// message is limited.
type paging struct{ limit, most int64 }

const (
	// firstPage is the size of the first page, when the size of the records is unknown.
	firstPage = 100
	// pageBytes is the target size of a page. It is a small part of the largest message.
	pageBytes = 4 << 20
)

func newPaging(most int64) *paging { return &paging{limit: min(firstPage, most), most: most} }

// adapt chooses the size of the next page by the contents of the last one. It grows at most tenfold: the next records may differ.
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

// smaller chooses a smaller page after one that was too large. It returns false if the page was the smallest.
func (p *paging) smaller() bool {
	if p.limit <= 1 {
		return false
	}
	p.limit /= 4
	p.limit = max(1, p.limit)
	return true
}
