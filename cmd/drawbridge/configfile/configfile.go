// Package configfile applies a configuration file to a gateway in this process. The
// file is its whole configuration.
package configfile

import (
	"context"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	"github.com/drawbridge-gateway/drawbridge/gateway"
	"github.com/drawbridge-gateway/drawbridge/gateway/files"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Load reads a file or directory with the whole configuration, which must not be empty.
// If the file system hangs, Load returns when ctx ends.
func Load(ctx context.Context, path string, log hclog.Logger) (*manifest.Manifest, error) {
	m, err := files.Await(ctx, log, "--config "+path, func() (*manifest.Manifest, error) { return manifest.LoadConfig(path) })
	if err != nil {
		return nil, err
	}
	return m, NotEmpty(m, path)
}

// NotEmpty rejects an empty configuration, which would delete everything. Probably it is
// the wrong file, or a program is still writing it.
func NotEmpty(m *manifest.Manifest, source string) error {
	if len(m.Documents) > 0 {
		return nil
	}
	return &exit.Error{Code: exit.Invalid, Summary: source + " holds no resource; with prune that would delete everything"}
}

// Apply replaces the configuration of gw with m, in one edit. The edit also
// reads again every file that m names, and the system's roots.
func Apply(ctx context.Context, gw *gateway.Gateway, m *manifest.Manifest, trigger string, log hclog.Logger) error {
	edit := store.Edit{Prune: store.PruneAll(), RereadSystem: true, Comment: "configuration file, " + trigger, Origin: store.Origin{Method: trigger}}
	for i, r := range m.Resources() {
		body, ok := manifest.Body(r).(store.Resource)
		if !ok { // the store does not know this kind
			continue
		}
		edit.Puts = append(edit.Puts, store.Put{
			Path:     invalid.Path("resources").Index(i).Field(manifest.FieldName(r)),
			Resource: body,
		})
	}
	result, err := gw.Apply(ctx, edit)
	if err != nil {
		return exit.ApplyError(err, exit.InManifest(m))
	}
	name := exit.InManifest(m)
	for _, w := range result.Warnings {
		log.Warn("configuration", "field", name(string(w.Field)), "warning", w.Message)
	}
	done := make(map[adminv1.ChangeAction]int)
	for _, ch := range result.Changes {
		done[ch.Action]++
	}
	log.Info("configuration applied", "revision", result.State.Revision(),
		"created", done[adminv1.ChangeAction_CHANGE_ACTION_CREATED],
		"updated", done[adminv1.ChangeAction_CHANGE_ACTION_UPDATED],
		"deleted", done[adminv1.ChangeAction_CHANGE_ACTION_DELETED],
		"unchanged", done[adminv1.ChangeAction_CHANGE_ACTION_UNCHANGED])
	return nil
}
