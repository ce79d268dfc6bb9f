// Package e2e holds the end-to-end tests: the nftproxy binary on a node in a lab, with
// a real etcd and kube-apiserver, and real pods' sockets. They have the build tag e2e;
// make e2e runs them.
package e2e
