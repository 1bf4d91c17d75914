package client

import (
	"context"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Diff reads all differences between two revisions; if to is nil, it is the live
// revision.
func (cl *Client) Diff(ctx context.Context, from int64, to *int64) (*adminv1.DiffRevisionsResponse, error) {
	whole := &adminv1.DiffRevisionsResponse{}
	for token := ""; ; {
		page, err := cl.DiffRevisions(ctx, &adminv1.DiffRevisionsRequest{From: from, To: to, PageToken: token})
		if err != nil {
			return nil, err
		}
		whole.Changes, whole.To = append(whole.Changes, page.GetChanges()...), page.GetTo()
		if token = page.GetNextPageToken(); token == "" {
			return whole, nil
		}
	}
}

// LatestRevisions reads the latest revisions: most of them, or all if most is 0.
func (cl *Client) LatestRevisions(ctx context.Context, most int) ([]*adminv1.Revision, error) {
	var all []*adminv1.Revision
	for token := ""; ; {
		req := &adminv1.ListRevisionsRequest{PageToken: token}
		if most > 0 {
			req.PageSize = int32(min(most-len(all), 1000))
		}
		page, err := cl.ListRevisions(ctx, req)
		if err != nil {
			return nil, err
		}
		all, token = append(all, page.GetRevisions()...), page.GetNextPageToken()
		if token == "" || len(all) == most {
			return all, nil
		}
	}
}
