package main

import "github.com/spf13/cobra"

const waitLong = `wait does nothing until it gets SIGTERM or SIGINT, and exits with 0. It is the main
container of a pod in which an init container has done the work, as in manifests/cleanup:
the image contains no other program.`

func newWaitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait",
		Short: "Wait for SIGTERM",
		Long:  waitLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}
