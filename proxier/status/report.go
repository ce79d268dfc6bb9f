package status

import "time"

// Report is the status of nftproxy on a node, with some of the ports of its Services.
type Report struct {
	At      time.Time `json:"at"` // when it was made
	Summary Summary   `json:"summary"`
	// Problems exist now, the gravest first. There are none on a node that is well.
	Problems []Problem `json:"problems"`
	// MoreProblems is the number of problems of Services that are not listed.
	MoreProblems int `json:"moreProblems,omitempty"`

	Query
	// Busy says why there are no rows: what nftproxy is doing, and since when. It is "" if there are.
	Busy    string `json:"busy,omitempty"`
	Total   int    `json:"total"`   // ports of all Services
	Matched int    `json:"matched"` // those that the filter lets through
	Rows    []Row  `json:"rows"`    // those of the page
	// HistoryStep is the length of a step of the histories of the rows, in seconds.
	HistoryStep int `json:"historyStep"`
}

// Query says which rows a Report has.
type Query struct {
	// Filter has words, separated by spaces, each of which a row must have: see [Row.Target] and
	// [Frontend.Address]. Upper and lower case are the same.
	Filter string `json:"filter,omitempty"`
	// Order is OrderName (default), OrderRate, OrderConnections or OrderOpen.
	Order  string `json:"order,omitempty"`
	Offset int    `json:"offset"` // rows to leave out
	Limit  int    `json:"limit"`  // the most rows: 1 to MaxLimit, by default DefaultLimit
}

// Orders of rows. Those by numbers begin with the greatest, and equal ones are in the order of their names.
const (
	OrderName        = "name"
	OrderRate        = "rate"
	OrderConnections = "connections"
	OrderOpen        = "open"
)

// Bounds of the rows of a Report.
const (
	DefaultLimit = 50
	MaxLimit     = 200
)

// Summary is the state of the node.
type Summary struct {
	Node       string    `json:"node"`
	Version    string    `json:"version"`
	Kernel     string    `json:"kernel"` // release
	Started    time.Time `json:"started"`
	Generation uint32    `json:"generation"` // of nftables in this network namespace; 0: not known

	Services  int `json:"services"`  // programmed
	Frontends int `json:"frontends"` // programmed

	LastSync time.Time `json:"lastSync,omitzero"` // that succeeded; zero: none has
	// LastSyncAge is the time from LastSync to Report.At in seconds. A node on which nothing changes has nothing
	// to sync, so a great age is no error.
	LastSyncAge float64 `json:"lastSyncAge,omitempty"`
	SyncError   string  `json:"syncError,omitempty"` // of the last sync; "": it succeeded

	// Programming are the times from the change of a pod or Service in the cluster to the commit on this node.
	Programming Latency `json:"programming"`
	Syncs       Latency `json:"syncs"` // durations of syncs

	DriftRepaired int `json:"driftRepaired"` // repairs of the tables since the start
	Conflicts     int `json:"conflicts"`     // frontends that more than one Service claims
	// Counted says which connections the kernel counts: those of endpoints, services or off.
	Counted string `json:"counted"`
}

// Latency has quantiles of the last Samples times, in seconds. They are 0 without samples.
type Latency struct {
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Samples int     `json:"samples"`
}

// Problem is something that an operator should know about, and do something about.
type Problem struct {
	What  string    `json:"what"`
	Since time.Time `json:"since,omitzero"` // zero: not known
	Todo  string    `json:"todo"`
}

// Row is a port of a Service.
type Row struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Name      string `json:"name,omitempty"` // of the port
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"` // tcp, udp or sctp
	// Target is what to ask `nftproxy explain` about: namespace/service:port/protocol.
	Target string `json:"target"`

	Frontends []Frontend `json:"frontends"`
	Policies  []string   `json:"policies"`           // in words, only those that are not the default
	Problems  []string   `json:"problems,omitempty"` // of the Service: what of it is left out

	// The endpoints of the port in all EndpointSlices: how many are ready; serve, ready or not; are left out
	// here, as no frontend leads to them; and all.
	Ready   int `json:"ready"`
	Serving int `json:"serving"`
	LeftOut int `json:"leftOut"`
	All     int `json:"all"`

	// Connections that this node has handled since it counts them, and how many of them came per second between
	// the last two reads of the counters. Nil if the kernel does not count.
	Connections *uint64  `json:"connections,omitempty"`
	Rate        *float64 `json:"rate,omitempty"`
	// History has the connections in each step of the last 15 minutes, the oldest first. It is empty if there
	// were none.
	History []uint32 `json:"history,omitempty"`
	Open    *int     `json:"open,omitempty"` // connections that are open now; nil: not known

	// Endpoints are the first MaxEndpoints of all, those that are used before those that are left out.
	Endpoints []Endpoint `json:"endpoints"`
}

// MaxEndpoints bounds the endpoints that a Row lists.
const MaxEndpoints = 64

// Frontend is an address at which clients reach a port.
type Frontend struct {
	Address string `json:"address"`         // address and port
	Kind    string `json:"kind"`            // ClusterIP, nodePort, load-balancer IP or external IP
	Owner   string `json:"owner,omitempty"` // another Service, which has the frontend; "": this one has it
}

// Endpoint is an endpoint of a port.
type Endpoint struct {
	Address string `json:"address"`
	Port    uint16 `json:"port"`
	Node    string `json:"node,omitempty"`
	Ready   bool   `json:"ready"`
	Serving bool   `json:"serving"`
	// LeftOut says why no frontend on this node leads to it; "": one does.
	LeftOut string `json:"leftOut,omitempty"`
	// Connections that the kernel has counted since it has the endpoint, at all frontends together, and the share
	// of them among those of all endpoints of the port, 0 to 1. Nil if the kernel does not count them.
	Connections *uint64  `json:"connections,omitempty"`
	Share       *float64 `json:"share,omitempty"`
	Open        *int     `json:"open,omitempty"` // connections that are open now; nil: not known
}
