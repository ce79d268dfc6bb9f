package status

import (
	"bytes"
	"cmp"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Bounds of a filter, so that a long one costs no more than a short one.
const (
	maxFilter = 256 // bytes
	maxWords  = 8
)

// ParseQuery returns the Query of a URL: q (the filter), order, offset and limit. It ignores what it does not
// understand.
func ParseQuery(values url.Values) Query {
	number := func(name string) int {
		n, _ := strconv.Atoi(values.Get(name))
		return n
	}
	q := Query{Filter: values.Get("q"), Order: values.Get("order"),
		Offset: number("offset"), Limit: number("limit")}
	return q.Normal()
}

// Normal returns the Query within its bounds and with its defaults.
func (q Query) Normal() Query {
	q.Filter = strings.ToValidUTF8(q.Filter[:min(len(q.Filter), maxFilter)], "")
	words := strings.Fields(q.Filter)
	q.Filter = strings.Join(words[:min(len(words), maxWords)], " ")
	if q.Order != OrderRate && q.Order != OrderConnections && q.Order != OrderOpen {
		q.Order = OrderName
	}
	q.Offset = min(max(q.Offset, 0), math.MaxInt-MaxLimit) // so that the end of the page is a number
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	q.Limit = min(q.Limit, MaxLimit)
	return q
}

// Selected is a port that is a row.
type Selected struct {
	Service *service.Service
	Port    int // index in Service.Ports
}

// Name returns the name of the port: see rules.Entry.Port.
func (s Selected) Name() string {
	return rules.PortName(s.Service.Name, s.Service.Ports[s.Port].Name)
}

// Selection has the ports that a Query selects.
type Selection struct {
	Rows           []Selected // those of the page
	Total, Matched int
}

// Select selects ports of Services, whose order it changes. ranks has the numbers by which the order of the
// query sorts, by the names of ports, and OrderName does not use it. Only the rows of the page are kept, because
// there may be 50,000.
func (q Query) Select(all []*service.Service, ranks map[string]float64) (s Selection) {
	slices.SortFunc(all, func(a, b *service.Service) int { return a.Name.Compare(b.Name) })
	f := newFilter(q.Filter)
	var first []ranked
	others := 0 // of the ports that match, without those in first
	for _, svc := range all {
		s.Total += len(svc.Ports)
		for i := range svc.Ports {
			if !f.matches(svc, i) {
				continue
			}
			s.Matched++
			if q.Order != OrderName {
				if rank := ranks[Selected{svc, i}.Name()]; rank > 0 {
					first = append(first, ranked{Selected{svc, i}, rank})
					continue
				}
			}
			if others++; others <= q.Offset+q.Limit && (q.Order != OrderName || others > q.Offset) {
				s.Rows = append(s.Rows, Selected{svc, i})
			}
		}
	}
	if q.Order != OrderName {
		slices.SortStableFunc(first, func(a, b ranked) int { return cmp.Compare(b.rank, a.rank) })
		s.Rows = pageOf(first, s.Rows, q)
	}
	return s
}

// ranked is a port with the number by which the order sorts it.
type ranked struct {
	Selected
	rank float64
}

// pageOf returns the ports of the page, of which those with a rank come first.
func pageOf(first []ranked, others []Selected, q Query) []Selected {
	rows := make([]Selected, 0, q.Limit)
	for i := q.Offset; i < q.Offset+q.Limit && i < len(first)+len(others); i++ {
		if i < len(first) {
			rows = append(rows, first[i].Selected)
		} else {
			rows = append(rows, others[i-len(first)])
		}
	}
	return rows
}

// filter finds words in what a row is called and where it is reached. It keeps its buffer, because it reads
// 50,000 Services for each page.
type filter struct {
	words [][]byte
	text  []byte
}

func newFilter(text string) *filter {
	return &filter{words: bytes.Fields([]byte(strings.ToLower(text)))}
}

// matches reports whether a port has all words.
func (f *filter) matches(svc *service.Service, port int) bool {
	if len(f.words) == 0 {
		return true
	}
	p := &svc.Ports[port]
	f.text = append(f.text[:0], svc.Name.Namespace...)
	f.text = append(append(f.text, '/'), svc.Name.Name...)
	f.text = append(append(f.text, ':'), p.Name...)
	f.text = append(append(f.text, '/'), p.Protocol.String()...)
	f.number(' ', p.Port)
	if p.NodePort != 0 {
		f.number(' ', p.NodePort)
	}
	for _, list := range [][]netip.Addr{svc.ClusterIPs, svc.LoadBalancerIPs, svc.ExternalIPs} {
		for _, a := range list {
			f.text = append(f.text, ' ')
			if a.Is6() {
				f.text = append(a.AppendTo(append(f.text, '[')), ']')
			} else {
				f.text = a.AppendTo(f.text)
			}
			f.number(':', p.Port)
		}
	}
	return !slices.ContainsFunc(f.words, func(w []byte) bool { return !bytes.Contains(f.text, w) })
}

func (f *filter) number(before byte, n uint16) {
	f.text = strconv.AppendUint(append(f.text, before), uint64(n), 10)
}
