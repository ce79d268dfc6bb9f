package service

// StaleFlows is a frontend of UDP or SCTP that changed: established flows to it may lead to endpoints that it no
// longer has. Rules do not see them, so they have to be deleted from connection tracking.
type StaleFlows struct {
	Frontend Frontend
	// Keep are the backends whose flows stay: all serving endpoints of the Service's port, terminating ones included,
	// whatever traffic policies and topology say. It is empty if the frontend or its last endpoint is gone.
	Keep []Backend
}
