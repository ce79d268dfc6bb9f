package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

const ownPrefix = "nftproxy_"

// own has those of nftproxy's own metrics that have a label.
type own struct {
	transactions  *prometheus.CounterVec
	elements      *prometheus.CounterVec
	netlinkErrors *prometheus.CounterVec
	frontends     *prometheus.GaugeVec
	heard         *prometheus.GaugeVec
	refused       *prometheus.GaugeVec

	shapes map[string]map[string]int // by family: the last counts given to SetFrontends
}

func newOwn(r registerer) own {
	o := own{
		transactions: r.counterVec(ownPrefix+"transactions_total",
			"Transactions of nftables by result: success or error.", "result"),
		elements: r.counterVec(ownPrefix+"elements_total",
			"Elements of sets and maps in committed transactions by operation: add or delete.", "operation"),
		netlinkErrors: r.counterVec(ownPrefix+"netlink_errors_total",
			"Errors of the kernel by name of the errno, or unknown if there was none: of transactions, reads and "+
				"drift checks of nftproxy's tables, and of deletions of stale chains, sets and flows.",
			"errno"),
		frontends: r.gaugeVec(ownPrefix+"frontends",
			"Programmed frontends by shape: the chain that they use.", "shape", labelFamily),
		heard: r.gaugeVec(ownPrefix+"api_server_last_heard_timestamp_seconds",
			"When a list, an event or a bookmark of a resource last came from the API server.", "resource"),
		refused: r.gaugeVec(ownPrefix+"frontends_refused",
			"Frontends that Services want and do not get, by reason: limit, as all of them need too many elements, "+
				"or reserved, as the node itself needs the address and port.", "reason"),
		shapes: map[string]map[string]int{},
	}
	o.setRefused(0, 0)
	for _, result := range []string{"success", "error"} {
		o.transactions.WithLabelValues(result)
	}
	for _, operation := range []string{"add", "delete"} {
		o.elements.WithLabelValues(operation)
	}
	return o
}

func (o *own) setRefused(limit, reserved int) {
	o.refused.WithLabelValues("limit").Set(float64(limit))
	o.refused.WithLabelValues("reserved").Set(float64(reserved))
}

// SetRefused sets how many frontends Services want and do not get: because they need too many elements, and
// because the node needs them itself.
func (m *Metrics) SetRefused(limit, reserved int) { m.own.setRefused(limit, reserved) }

// TransactionDone records the result of a transaction that adds and deletes so many elements. It counts an
// error as a netlink error, too.
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

// NetlinkError counts an error of an operation other than a transaction: a read or a drift check of the
// tables, or a deletion of stale chains, sets or flows.
func (m *Metrics) NetlinkError(err error) {
	m.own.netlinkErrors.WithLabelValues(errnoName(err)).Inc()
}

// APIServerHeard records that the API server has just been heard about a resource ("services").
func (m *Metrics) APIServerHeard(resource string) {
	m.own.heard.WithLabelValues(resource).SetToCurrentTime()
}

// errnoName returns the name of the first errno that err wraps, or "unknown".
func errnoName(err error) string {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
	}
	return "unknown"
}

// SetFrontends sets how many frontends of each shape are programmed in a family. The series of a shape that
// counts does not have, or has with 0, goes away; the other series are there all the time. SetFrontends keeps
// counts, which must not be changed afterwards.
func (m *Metrics) SetFrontends(family service.Family, counts map[string]int) {
	label := family.APIName()
	for shape := range m.own.shapes[label] {
		if counts[shape] == 0 {
			m.own.frontends.DeleteLabelValues(shape, label)
		}
	}
	for shape, n := range counts {
		if n > 0 {
			m.own.frontends.WithLabelValues(shape, label).Set(float64(n))
		}
	}
	m.own.shapes[label] = counts
}
