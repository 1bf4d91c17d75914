package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// fileGateway adapts the gateway for package files.
type fileGateway struct{ *Gateway }

func (g fileGateway) Live() *snapshot.Snapshot { return g.live.Load() }

func (g fileGateway) Gather(ctx context.Context, e store.Edit) (*snapshot.Material, error) {
	return g.gather(ctx, g.live.Load(), e, snapshot.Needs{})
}

func (g fileGateway) ApplyRead(ctx context.Context, e store.Edit, m *snapshot.Material) (*store.Result, error) {
	return g.applyRead(ctx, e, m)
}

func (g fileGateway) FileEvent(ref store.Ref, e *adminv1.Event) {
	if e.Type == adminv1.EventType_EVENT_TYPE_FILE_REFUSED {
		g.log.Warn("files rejected", "resource", ref.String(), "error", e.Message)
	} else {
		g.log.Info("files loaded", "resource", ref.String(), "revision", e.Revision)
	}
	e.Kind, e.Name, e.Count = ref.Kind, ref.Name, 1
	g.event(e)
}

// fileRoots returns the directories below which files may be read.
func fileRoots(o Options) (fileroot.Roots, error) {
	dirs := o.FileRoots
	if dirs == nil {
		dirs = []string{o.DataDir, "/etc/drawbridge"}
	}
	var roots fileroot.Roots
	for _, dir := range dirs {
		if dir == "" {
			return nil, errors.New("a file root is empty: it must be a directory")
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("file root %s: %w", dir, err)
		}
		roots = append(roots, abs)
	}
	return roots, nil
}
