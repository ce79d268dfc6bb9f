// Package browser tests the status page in a real headless Chromium, on a node of the lab with connections to
// its Services: see TestPage. The browser comes from the distribution: apt-get install chromium.
//
// The picture of the page in docs is desktop-light.png of the same test, after a quarter of an hour of
// connections:
//
//	go test -C internal/browser -run TestPage -load 16m -pictures "$PWD/bin" -timeout 30m
package browser
