// Package upstream has tests that run nftproxy's code next to the code of Kubernetes that it stands in for,
// and compare the two.
//
// nftproxy writes the pages of its metrics address itself, because the libraries of the API server would make
// the program larger by half. These tests find where the pages differ, also after an upgrade of Kubernetes.
//
// Start reading at TestPages.
package upstream
