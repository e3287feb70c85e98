// What a connection to the cluster's end of the link is handed on to.

package main

import (
	"context"
	"io"
	"net"

	"github.com/spf13/cobra"
)

// newForwardCommand hands connections on to an address that its callers cannot reach: a registry on the loopback device
// of the machine, which the cluster's network does not have.
func newForwardCommand(ctx context.Context) *cobra.Command {
	var from, to string
	command := &cobra.Command{
		Use: "forward",
		RunE: func(*cobra.Command, []string) error {
			listener, err := net.Listen("tcp", from)
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { listener.Close() })
			for {
				caller, err := listener.Accept()
				if err != nil {
					return ctx.Err()
				}
				go hand(caller, to)
			}
		},
	}
	command.Flags().StringVar(&from, "from", "", "address to listen at (host:port)")
	command.Flags().StringVar(&to, "to", "", "address to call (host:port)")
	return command
}

func hand(caller net.Conn, to string) {
	defer caller.Close()
	called, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer called.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{called, caller}, {caller, called}} {
		go func() {
			io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}
