package interop_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// grpcCases are grpc-go's own cases that need no cloud.
var grpcCases = []struct {
	name string
	run  func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)
}{
	{"empty_unary", interop.DoEmptyUnaryCall},
	{"large_unary", interop.DoLargeUnaryCall},
	{"client_streaming", interop.DoClientStreaming},
	{"server_streaming", interop.DoServerStreaming},
	{"ping_pong", interop.DoPingPong},
	{"empty_stream", interop.DoEmptyStream},
	{"timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer},
	{"cancel_after_begin", interop.DoCancelAfterBegin},
	{"cancel_after_first_response", interop.DoCancelAfterFirstResponse},
	{"status_code_and_message", interop.DoStatusCodeAndMessage},
	{"special_status_message", interop.DoSpecialStatusMessage},
	{"custom_metadata", interop.DoCustomMetadata},
}

// panics is a log whose fatal messages panic with their text and the case's
// stack: grpc-go's cases end the process when they fail.
type panics struct{ grpclog.LoggerV2 }

func (panics) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (panics) Fatalln(args ...any)               { panic(fmt.Sprintln(args...)) }
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func init() { grpclog.SetLoggerV2(panics{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)}) }

func TestGRPC(t *testing.T) {
	overWays(t, func(t *testing.T, alice, bob *device) {
		ctx := limited(t)
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		listener := bob.listen(t, "grpc://*")
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()

		connect := func() (*grpc.ClientConn, func()) {
			conn, err := grpc.NewClient("passthrough:grpc+peer://"+bob.id().String()+"/interop",
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
					return alice.ConnectionManager().DialContext(ctx, "tcp", addr)
				}))
			if err != nil {
				panic(err)
			}
			return conn, func() { _ = conn.Close() }
		}
		conn, closeConn := connect()
		client := testgrpc.NewTestServiceClient(conn)
		for _, c := range grpcCases {
			t.Run(c.name, func(*testing.T) { c.run(ctx, client) })
		}
		t.Run("unimplemented_method", func(*testing.T) { interop.DoUnimplementedMethod(ctx, conn) })
		t.Run("unimplemented_service", func(*testing.T) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		})
		t.Run("rpc_soak", func(*testing.T) {
			soak(ctx, func() (*grpc.ClientConn, func()) { return conn, func() {} })
		})
		t.Run("channel_soak", func(*testing.T) { soak(ctx, connect) })
		closeConn()
		server.GracefulStop()
		if err := <-served; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
}

// soak makes 20 calls, four at once, none of which may fail. connect returns what
// each call is made on.
func soak(ctx context.Context, connect func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize: 271828, ResponseSize: 314159, NumWorkers: 4, Iterations: 20, ChannelForTest: connect,
		PerIterationMaxAcceptableLatency: patience, OverallTimeout: patience,
	})
}
