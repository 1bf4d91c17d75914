package admin

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/wellformed"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A writeRequest is a request with the options of a write.
type writeRequest interface {
	proto.Message
	GetOptions() *adminv1.WriteOptions
}

// unknownIn returns faults for fields and values of req that this version does not
// know: a newer client's settings must never be dropped silently. The gateway checks
// the resources of a write, because it finds all their faults at once.
func unknownIn(req any) []invalid.Fault {
	m, ok := req.(proto.Message)
	if !ok || m.ProtoReflect().Descriptor().ParentFile().Package() != adminv1.File_drawbridge_admin_v1_config_proto.Package() {
		return nil // a message of the health service or of reflection
	}
	var skip func(protoreflect.Message) bool
	if _, ok := req.(writeRequest); ok {
		skip = func(m protoreflect.Message) bool {
			_, resource := m.Interface().(store.Resource)
			return resource
		}
	}
	var bad invalid.List
	wellformed.Check(m.ProtoReflect(), "", skip, &bad)
	return bad.Faults()
}

// onlyCheck turns a write into a dry run, so that its other faults are found too. It
// returns false for any other request.
func onlyCheck(req any) bool {
	w, ok := req.(writeRequest)
	if !ok {
		return false
	}
	m := w.ProtoReflect()
	checked := &adminv1.WriteOptions{DryRun: true, Comment: w.GetOptions().GetComment()}
	m.Set(m.Descriptor().Fields().ByName("options"), protoreflect.ValueOfMessage(checked.ProtoReflect()))
	return true
}
