// Package health is what others ask nftproxy about itself over HTTP: whether it keeps
// up (/healthz and /livez), whether a load balancer should send a Service's
// connections to this node (healthCheckNodePort), and the pages of the metrics
// address. Paths, bodies, headers and status codes are kube-proxy's, so that probes,
// cloud load balancers and dashboards need not know which of the two runs.
package health
