package admin

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// tap rejects a call whose caller lacks the right that the method needs. It runs before
// gRPC reads a message or looks the method up, so it also rejects (and logs) paths that
// never reach an interceptor, such as one without its leading slash.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	_, err := s.authorize(ctx, info.FullMethodName)
	if err != nil {
		c := &call{s: s, ctx: ctx, method: info.FullMethodName, began: time.Now()}
		c.end(nil, nil, err)
	}
	return ctx, err
}

func errNoMethod() error {
	return statusWith(codes.Unimplemented, "NO_SUCH_METHOD", "there is no such method").Err()
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	s.calls.begin()
	defer s.calls.end()
	c := &call{s: s, ctx: ctx, method: info.FullMethod, began: time.Now()}
	defer func() { c.end(req, resp, err) }()
	ctx = context.WithValue(ctx, callKey{}, c)
	if _, err := s.authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, unaryTimeout)
	defer cancel()
	err = s.recovered(info.FullMethod, func() (err error) {
		faults := unknownIn(req)
		if len(faults) > 0 && !onlyCheck(req) {
			return &invalid.Error{Faults: faults}
		}
		resp, err = handler(ctx, req)
		if err := join(faults, err); err != nil {
			return err
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// stream ends a call when the server stops, even if its handler is blocked: reflection
// and health calls last as long as their clients want, and would delay a graceful
// stop.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	s.calls.begin()
	defer s.calls.end()
	c := &call{s: s, ctx: ss.Context(), method: info.FullMethod, began: time.Now()}
	defer func() { c.end(nil, nil, err) }()
	changed, err := s.authorize(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	from, _ := callerOf(ss.Context())
	if !s.open.enter(from.Principal) {
		return statusWith(codes.ResourceExhausted, "TOO_MANY_STREAMS", fmt.Sprintf("the caller has %d streams open, which is the limit: end one of them", maxStreamsPerCaller)).Err()
	}
	defer s.open.leave(from.Principal)
	done := make(chan error, 1)
	// When this function returns, the stream ends and the handler's Send or Recv
	// fails. Shutdown waits for the handler.
	s.streams.Go(func() {
		done <- s.recovered(info.FullMethod, func() error { return handler(srv, checkedStream{ss}) })
	})
	for {
		select {
		case err := <-done:
			return err
		case <-changed: // the caller may have lost the right
			if changed, err = s.authorize(ss.Context(), info.FullMethod); err != nil {
				return err
			}
		case <-s.stopping:
			return errStopping()
		}
	}
}

// A checkedStream rejects requests with fields or values that this version does not
// know.
type checkedStream struct{ grpc.ServerStream }

func (s checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if faults := unknownIn(m); len(faults) > 0 {
		return &invalid.Error{Faults: faults}
	}
	return nil
}

// recovered calls f and returns its error, or its panic, as a status.
func (s *Server) recovered(method string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic in a handler", "method", method, "panic", sanitize(fmt.Sprint(v), maxFault), "stack", string(debug.Stack()))
			err = errInternal().Err()
		}
	}()
	err = f()
	st, known := statusOf(err)
	if !known {
		s.log.Error("unexpected error", "method", method, "error", sanitize(err.Error(), maxMessageText))
	}
	return st.Err()
}

// A call holds the facts that are logged and measured about one call.
type call struct {
	s      *Server
	ctx    context.Context // the context of the call
	method string
	began  time.Time

	written   bool     // the gateway has the write, and records it in the audit log
	resources []string // the resources that a write names
}

// callKey is the key of a unary call's *call in its context.
type callKey struct{}

// end records how the call ended. req and resp may be nil.
func (c *call) end(req, resp any, err error) {
	st := status.Convert(err)
	right, known := c.s.rights[c.method]
	c.s.measure(c, st.Code())
	c.audit(req, st, right)

	name := ""
	if from, ok := callerOf(c.ctx); ok {
		name = from.Principal
	}
	fields := []any{"method", sanitize(c.method, maxField), "client", name, "code", st.Code().String()}
	if w, ok := req.(interface{ GetOptions() *adminv1.WriteOptions }); ok && w.GetOptions().GetDryRun() {
		fields = append(fields, "dry_run", true)
	}
	if w, ok := resp.(interface{ GetChange() *adminv1.Change }); ok && err == nil {
		fields = append(fields, "revision", w.GetChange().GetRevision())
	}
	if err != nil {
		fields = append(fields, "error", sanitize(st.Message(), maxMessageText))
	}
	switch {
	case !known || st.Code() == codes.Unauthenticated || st.Code() == codes.PermissionDenied:
		c.s.log.Info("denied", fields...)
	case right == adminv1.Right_RIGHT_SECRET:
		c.s.log.Info("secrets read", fields...)
	case right != adminv1.Right_RIGHT_READ:
		c.s.log.Info("write", fields...)
	default:
		c.s.log.Debug("read", fields...)
	}
}
