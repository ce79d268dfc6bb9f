package status

// Traffic is the connections to a port of a Service that this node has handled.
type Traffic struct {
	Connections uint64   // since the kernel counts them
	Rate        float64  // per second, between the last two reads of the counters
	History     []uint32 // see Row.History
}
