package metrics

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

const ownPrefix = "nftproxy_"

// own are nftproxy's own metrics, as far as they have a label.
type own struct {
	transactions  *prometheus.CounterVec
	elements      *prometheus.CounterVec
	netlinkErrors *prometheus.CounterVec
	frontends     *prometheus.GaugeVec

	shapes *shownShapes
}

// shownShapes remembers which series of frontends there are, to take away those that
// no frontend has any more without a moment in which all are away.
type shownShapes struct {
	mu       sync.Mutex
	byFamily map[string]map[string]int
}

func newOwn(r registerer) own {
	o := own{
		transactions:  r.counterVec(ownPrefix+"transactions_total", "Netlink transactions by result: success or error.", "result"),
		elements:      r.counterVec(ownPrefix+"elements_total", "Elements of sets and maps in transactions that succeeded, by operation: add or delete.", "operation"),
		netlinkErrors: r.counterVec(ownPrefix+"netlink_errors_total", "Errors of netlink requests by errno; unknown where the kernel gave none.", "errno"),
		frontends:     r.gaugeVec(ownPrefix+"frontends", "Frontends that are programmed, by shape.", "shape", labelFamily),
		shapes:        &shownShapes{byFamily: map[string]map[string]int{}},
	}
	for _, result := range []string{"success", "error"} {
		o.transactions.WithLabelValues(result)
	}
	for _, operation := range []string{"add", "delete"} {
		o.elements.WithLabelValues(operation)
	}
	return o
}

// TransactionDone notes how a transaction that adds and deletes that many elements
// ended. Its error counts as a netlink error.
func (m *Metrics) TransactionDone(added, deleted int, err error) {
	if err != nil {
		m.own.transactions.WithLabelValues("error").Inc()
		m.NetlinkError(err)
		return
	}
	m.own.transactions.WithLabelValues("success").Inc()
	m.own.elements.WithLabelValues("add").Add(float64(added))
	m.own.elements.WithLabelValues("delete").Add(float64(deleted))
}

// NetlinkError counts an error of a netlink request that was not a transaction: a dump,
// a poll of the generation, a deletion of flows.
func (m *Metrics) NetlinkError(err error) {
	label := "unknown"
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if name := unix.ErrnoName(errno); name != "" {
			label = name
		}
	}
	m.own.netlinkErrors.WithLabelValues(label).Inc()
}

// SetFrontends sets how many frontends of each shape are programmed in a family. A
// shape that is not in counts, or with 0, is no longer shown. counts is kept; it must
// not be changed afterwards.
func (m *Metrics) SetFrontends(family service.Family, counts map[string]int) {
	label := familyLabel(family)
	m.own.shapes.mu.Lock()
	defer m.own.shapes.mu.Unlock()
	for shape := range m.own.shapes.byFamily[label] {
		if counts[shape] == 0 {
			m.own.frontends.DeleteLabelValues(shape, label)
		}
	}
	for shape, n := range counts {
		if n > 0 {
			m.own.frontends.WithLabelValues(shape, label).Set(float64(n))
		}
	}
	m.own.shapes.byFamily[label] = counts
}
