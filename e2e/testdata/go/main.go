// Program automate rotates a certificate and follows the configuration, as automation
// does.
//
// automate SOCKET CHAIN KEY
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// retried repeats a call while the connection is lost. The gateway may have performed
// a write although its answer was lost. Then the repeated write has no effect.
func retried[Req, Resp any](ctx context.Context, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	for {
		resp, err := call(ctx, req, grpc.WaitForReady(true))
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return resp, err
		}
		fmt.Println("retry:", err)
		time.Sleep(50 * time.Millisecond)
	}
}

func rotate(ctx context.Context, admin adminv1.AdminServiceClient, chain, key string) error {
	current, err := retried(ctx, admin.GetCertificate, &adminv1.GetCertificateRequest{Name: "client"})
	if err != nil {
		return err
	}
	desired := &adminv1.Certificate{
		Name:   "client",
		Etag:   current.GetEtag(), // the write fails if another caller has changed the resource since
		Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: chain, PrivateKey: key}},
	}
	checked, err := retried(ctx, admin.PutCertificate, &adminv1.PutCertificateRequest{
		Certificate: desired, Options: &adminv1.WriteOptions{DryRun: true}})
	if err != nil {
		return err
	}
	fmt.Println("dry run:", word(checked.GetChange()))
	done, err := retried(ctx, admin.PutCertificate, &adminv1.PutCertificateRequest{
		Certificate: desired, Options: &adminv1.WriteOptions{Comment: "rotated by automation"}})
	if err != nil {
		return err
	}
	fmt.Println("rotated:", word(done.GetChange()), done.GetCertificate().GetInfo().GetSha256Fingerprint())
	return nil
}

// word returns what happened to the first resource of a change.
func word(c *adminv1.Change) string {
	return c.GetChanges()[0].GetAction().String()[len("CHANGE_ACTION_"):]
}

// changeLabels reads, changes and writes, and begins again if another caller was
// faster.
func changeLabels(ctx context.Context, admin adminv1.AdminServiceClient) error {
	for stale := "0000000000000000"; ; stale = "" {
		upstream, err := retried(ctx, admin.GetUpstream, &adminv1.GetUpstreamRequest{Name: "web"})
		if err != nil {
			return err
		}
		upstream.Labels = map[string]string{"owner": "go"}
		if stale != "" {
			upstream.Etag = stale
		}
		_, err = retried(ctx, admin.PutUpstream, &adminv1.PutUpstreamRequest{Upstream: upstream}) // upstream contains the etag
		if status.Code(err) != codes.Aborted {
			return err
		}
		fmt.Println("changed by another, once more")
	}
}

func create(ctx context.Context, admin adminv1.AdminServiceClient) error {
	created := &adminv1.Upstream{Name: "created", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}}
	only := &adminv1.WriteOptions{CreateOnly: true}
	for range 2 {
		answer, err := retried(ctx, admin.PutUpstream, &adminv1.PutUpstreamRequest{Upstream: created, Options: only})
		if err != nil {
			return err
		}
		fmt.Println("create only:", word(answer.GetChange()))
	}
	created.Pool = &adminv1.Pool{MaxIdle: new(int32)} // optional, because 0 is different from absent
	_, err := admin.PutUpstream(ctx, &adminv1.PutUpstreamRequest{Upstream: created, Options: only})
	if status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("create only: %w", err)
	}
	fmt.Println("create only:", status.Code(err))
	return nil
}

// A position is the place where a watch resumes.
type position struct {
	instance string
	revision int64
}

// watch returns the messages up to one with synced, and the position after it.
func watch(ctx context.Context, admin adminv1.AdminServiceClient, from position) ([]*adminv1.WatchConfigResponse, position, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := admin.WatchConfig(ctx, &adminv1.WatchConfigRequest{InstanceId: from.instance, Revision: from.revision})
	if err != nil {
		return nil, from, err
	}
	var seen []*adminv1.WatchConfigResponse
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, from, err
		}
		seen = append(seen, m)
		if m.GetSynced() {
			return seen, position{m.GetInstanceId(), m.GetRevision()}, nil
		}
	}
}

// waitHealthy returns once an endpoint of an upstream is healthy.
func waitHealthy(ctx context.Context, state adminv1.StatusServiceClient, upstream string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := state.WatchEvents(ctx, &adminv1.WatchEventsRequest{
		AfterSequence: new(int64), Types: []adminv1.EventType{adminv1.EventType_EVENT_TYPE_ENDPOINT_HEALTH}, Names: []string{upstream}})
	if err != nil {
		return err
	}
	for {
		event, err := events.Recv()
		if err != nil || event.GetHealth() == adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
			return err
		}
	}
}

func run(socket, chain, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	admin := adminv1.NewAdminServiceClient(conn)
	state := adminv1.NewStatusServiceClient(conn)

	if err := errors.Join(rotate(ctx, admin, chain, key), create(ctx, admin), waitHealthy(ctx, state, "web")); err != nil {
		return err
	}
	fmt.Println("healthy")
	messages, at, err := watch(ctx, admin, position{})
	if err != nil {
		return err
	}
	resources := 0
	for _, m := range messages {
		resources += len(m.GetResources())
	}
	fmt.Println("state:", messages[0].GetReset_(), resources)
	if err := changeLabels(ctx, admin); err != nil {
		return err
	}
	missed, at, err := watch(ctx, admin, at)
	if err != nil {
		return err
	}
	var names []string
	for _, m := range missed {
		for _, c := range m.GetChanges() {
			names = append(names, c.GetName())
		}
	}
	fmt.Println("resumed:", missed[0].GetReset_(), names)

	events, err := state.WatchEvents(ctx, &adminv1.WatchEventsRequest{
		AfterSequence: new(int64), Types: []adminv1.EventType{adminv1.EventType_EVENT_TYPE_APPLIED}})
	for err == nil {
		var event *adminv1.Event
		if event, err = events.Recv(); err == nil && event.GetRevision() == at.revision {
			fmt.Println("event of the last revision:", event.GetSequence() > 0)
			fmt.Println("done")
			return nil
		}
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the watch ended")
	}
	return err
}

func main() {
	var files [2]string
	for i := range files {
		text, err := os.ReadFile(os.Args[2+i])
		if err != nil {
			log.Fatal(err)
		}
		files[i] = string(text)
	}
	if err := run(os.Args[1], files[0], files[1]); err != nil {
		log.Fatal(err)
	}
}
