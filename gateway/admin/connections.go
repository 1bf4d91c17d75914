package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func (s statusService) ListConnections(_ context.Context, req *adminv1.ListConnectionsRequest) (*adminv1.ListConnectionsResponse, error) {
	list := "connections?" + filterDigest(req.GetConnectionFilter())
	after, err := parseToken[uint64](list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var last uint64
	if after != nil {
		last = *after
	}
	out := &adminv1.ListConnectionsResponse{}
	p := newPage(req.GetPageSize())
	err = s.gateway.EachConnection(req.GetConnectionFilter(), last, func(number uint64, c *adminv1.Connection) bool {
		if !p.takes(c) {
			out.NextPageToken = formatToken(list, last)
			return false
		}
		out.Connections, last = append(out.Connections, c), number
		return true
	})
	return out, err
}

// filterDigest returns a short text that differs between filters, which may be long.
func filterDigest(f *adminv1.ConnectionFilter) string {
	encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(f) // fails only on invalid UTF-8, which no received message has
	digest := sha256.Sum256(encoded)
	return hex.EncodeToString(digest[:8])
}
