package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// EchoUnary is a gRPC method that echoes a message.
	EchoUnary = "/bench.Echo/Unary"
	// EchoStream echoes each message of a stream, until the client ends it.
	EchoStream = "/bench.Echo/Stream"
)

// EchoStreams describes EchoStream.
var EchoStreams = grpc.StreamDesc{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: echoStream}

// StartGRPC serves gRPC on a port of loopback that the kernel chooses.
func StartGRPC(config *tls.Config) (*Backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Backend{listener: l}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(b.counted(config))))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: echoUnary}},
		Streams:     []grpc.StreamDesc{EchoStreams},
	}, nil)
	b.closeServer = func() error {
		server.Stop()
		return nil
	}
	b.wg.Go(func() { _ = server.Serve(l) })
	return b, nil
}

func echoUnary(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	m := new(wrapperspb.BytesValue)
	return m, decode(m)
}

func echoStream(_ any, s grpc.ServerStream) error {
	m := new(wrapperspb.BytesValue)
	for {
		if err := s.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}
