// Command controlplane is the control plane of the end-to-end tests in one binary: "controlplane etcd" and
// "controlplane kube-apiserver", each with the flags of the program of that name. It ends when its standard input does,
// so that it does not outlive whoever started it.
package main

import (
	"fmt"
	"io"
	"os"
	_ "time/tzdata" // kube-apiserver has it

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	os.Args = os.Args[1:] // both look there for their flags
	switch os.Args[0] {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(app.NewAPIServerCommand()))
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: controlplane etcd|kube-apiserver [flags]")
	os.Exit(2)
}
