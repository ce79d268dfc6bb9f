package service

// StaleFlows is a changed frontend of UDP or SCTP: established flows to it may lead to endpoints that it no
// longer has. Rules see new flows only, so these have to be deleted from connection tracking.
type StaleFlows struct {
	Frontend Frontend
	// Service has the frontend, or had it before.
	Service Name
	// Gone says that no Service has the frontend any more. Then flows that were not translated are not ours.
	Gone bool
	// Keep are the backends whose flows stay; port 0 means all ports of the address. For UDP they are the
	// endpoints that serve, also terminating ones and those that traffic policies or topology exclude. For
	// SCTP they are all endpoints of the Service, in any condition.
	Keep []Backend
	// Draining are the UDP backends among Keep that terminate and get no new flows. Their idle flows end
	// early.
	Draining []Backend
}
