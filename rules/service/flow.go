package service

// StaleFlows is a changed frontend of UDP or SCTP: established flows to it may lead to endpoints that it no
// longer has. Rules see new flows only, so these have to be deleted from connection tracking.
type StaleFlows struct {
	Frontend Frontend
	// Keep are the backends whose flows stay: all serving endpoints of the Service's port, also terminating
	// ones and those that traffic policies or topology exclude. It is empty if the frontend or its last
	// endpoint is gone.
	Keep []Backend
}
