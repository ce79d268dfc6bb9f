// Package e2e has the end-to-end tests: they run the nftproxy binary on a node in a lab, with a real etcd and
// kube-apiserver, and send requests to the sockets of pods.
//
// Other tests replace the kernel or the API server. Here both are real, the configuration file is that of
// kubeadm, and the account has only the rights of manifests/base.
//
// The tests have the build tag e2e, because they build etcd and kube-apiserver first; make e2e runs them.
// Start reading at TestCluster.
package e2e
