// Package health serves the HTTP pages with which probes, load balancers and monitoring ask nftproxy about
// itself: whether it keeps up with changes (/healthz and /livez), whether a load balancer should send
// connections of a Service to this node (healthCheckNodePort), and the pages of the metrics address.
//
// Paths, bodies, headers and status codes are kube-proxy's, so that clients need not know which of the two
// proxies runs. The package knows nothing about rules or the kernel: the daemon reports to it when a change
// is queued, when a sync has succeeded, and which Services have endpoints on this node.
//
// Start reading at [ProxierHealth] and [ServiceHealth]; [Server] serves the pages.
package health
