package metrics

import (
	"iter"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nftproxy/nftproxy/rules"
)

// ReadConnections returns how many connections ports of Services got, by the names of the ports: see
// rules.SplitPort. With an error the numbers are as of the last time.
type ReadConnections func() (iter.Seq2[string, uint64], error)

// connections collects the connections that the kernel has counted, at each scrape.
type connections struct {
	*prometheus.Desc
	read    atomic.Pointer[ReadConnections] // nil: nothing is counted
	failure func(error)
}

func (m *Metrics) newConnections() *connections {
	name, help := ownPrefix+"service_connections_total", "New connections and UDP flows to a port of a Service "+
		"that this node has handled, also those that were refused or dropped. A port without one has no series."
	return &connections{
		Desc:    prometheus.NewDesc(name, help, []string{"namespace", "service", "port"}, nil),
		failure: m.NetlinkError,
	}
}

// SetConnections sets where the connections to Services come from. read is called at each scrape.
func (m *Metrics) SetConnections(read ReadConnections) { m.connections.read.Store(&read) }

func (c *connections) Describe(to chan<- *prometheus.Desc) { to <- c.Desc }

func (c *connections) Collect(to chan<- prometheus.Metric) {
	read := c.read.Load()
	if read == nil {
		return
	}
	ports, err := (*read)()
	if err != nil {
		c.failure(err)
	}
	for port, n := range ports {
		owner, name := rules.SplitPort(port)
		to <- prometheus.MustNewConstMetric(c.Desc, prometheus.CounterValue, float64(n),
			owner.Namespace, owner.Name, name)
	}
}
