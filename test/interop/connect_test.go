package interop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connectProtocols are those of connect-go that have bidi.
var connectProtocols = []struct {
	name    string
	options []connect.ClientOption
}{
	{"connect", nil},
	{"grpc", []connect.ClientOption{connect.WithGRPC()}},
}

// connect-go's clients talk to its handlers, one message at a time in both
// directions of a stream, with errors and deadlines.
func TestConnect(t *testing.T) {
	overWays(t, func(t *testing.T, alice, bob *device) {
		ctx := limited(t)
		gone := make(chan struct{}, 1)
		mux := http.NewServeMux()
		mux.Handle("/t/Echo", connect.NewBidiStreamHandler("/t/Echo", echoStream))
		mux.Handle("/t/Fail", connect.NewUnaryHandler("/t/Fail", fail))
		mux.Handle("/t/Wait", connect.NewUnaryHandler("/t/Wait", func(ctx context.Context, _ *connect.Request[wrapperspb.BytesValue]) (*connect.Response[wrapperspb.BytesValue], error) {
			<-ctx.Done()
			gone <- struct{}{}
			return nil, ctx.Err()
		}))
		bob.serve(t, mux)
		client := &http.Client{Transport: alice.ConnectionManager().HTTP2Transport()}
		for _, p := range connectProtocols {
			t.Run(p.name, func(t *testing.T) {
				call := func(name string) *connect.Client[wrapperspb.BytesValue, wrapperspb.BytesValue] {
					return connect.NewClient[wrapperspb.BytesValue, wrapperspb.BytesValue](client, "http+peer://"+bob.id().String()+"/t/"+name, p.options...)
				}
				converse(t, call("Echo").CallBidiStream(ctx))

				_, err := call("Fail").CallUnary(ctx, connect.NewRequest(wrapperspb.Bytes(nil)))
				failure, ok := errors.AsType[*connect.Error](err)
				if !ok || failure.Code() != connect.CodeResourceExhausted || failure.Message() != "none left" {
					t.Errorf("a failure arrives as %v", err)
				}

				short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
				_, err = call("Wait").CallUnary(short, connect.NewRequest(wrapperspb.Bytes(nil)))
				if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Errorf("after its deadline a call ends with %v", err)
				}
				await(ctx, t, gone) // the handler's context has ended, too
			})
		}
	})
}

func echoStream(_ context.Context, s *connect.BidiStream[wrapperspb.BytesValue, wrapperspb.BytesValue]) error {
	for {
		m, err := s.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
}

func fail(context.Context, *connect.Request[wrapperspb.BytesValue]) (*connect.Response[wrapperspb.BytesValue], error) {
	return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("none left"))
}

// converse sends each message once the one before has come back.
func converse(t *testing.T, s *connect.BidiStreamForClient[wrapperspb.BytesValue, wrapperspb.BytesValue]) {
	t.Helper()
	for i := range 100 {
		p := bytes.Repeat([]byte{byte(i)}, i*1000)
		if err := s.Send(wrapperspb.Bytes(p)); err != nil {
			t.Fatal(err)
		}
		m, err := s.Receive()
		if err != nil || !bytes.Equal(m.Value, p) {
			t.Fatalf("message %d of %d bytes comes back with %d, %v", i, len(p), len(m.GetValue()), err)
		}
	}
	if err := s.CloseRequest(); err != nil {
		t.Error(err)
	}
	if _, err := s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if err := s.CloseResponse(); err != nil {
		t.Error(err)
	}
}

// connect-go's client talks to grpc-go's server.
func TestConnectToGRPC(t *testing.T) {
	overWays(t, func(t *testing.T, alice, bob *device) {
		ctx := limited(t)
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		t.Cleanup(server.Stop)
		listener := bob.listen(t, "http://*")
		go func() { _ = server.Serve(listener) }()

		url := "http+peer://" + bob.id().String() + testgrpc.TestService_FullDuplexCall_FullMethodName
		client := connect.NewClient[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse](
			&http.Client{Transport: alice.ConnectionManager().HTTP2Transport()}, url, connect.WithGRPC())
		s := client.CallBidiStream(ctx)
		for _, n := range []int32{1, 31415, 1 << 20} {
			if err := s.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: n}}}); err != nil {
				t.Fatal(err)
			}
			m, err := s.Receive()
			if err != nil || len(m.Payload.Body) != int(n) {
				t.Fatalf("of %d bytes %d come, %v", n, len(m.GetPayload().GetBody()), err)
			}
		}
		if err := s.CloseRequest(); err != nil {
			t.Error(err)
		}
		if _, err := s.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}
