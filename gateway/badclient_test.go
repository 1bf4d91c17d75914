package gateway

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A badClient sends requests that change nothing, most of them writes that the gateway
// must refuse. It belongs to one goroutine.
type badClient struct {
	messageFiller
	conn     *grpc.ClientConn
	existing []store.Resource
	taken    string // an address that another socket listens on
	unixDir  string // a directory for unix sockets

	refused int // number of refused writes
	codes   map[codes.Code]int
}

// methods returns the unary methods of the admin API.
func methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		adminv1.File_drawbridge_admin_v1_admin_service_proto, adminv1.File_drawbridge_admin_v1_status_service_proto, adminv1.File_drawbridge_admin_v1_diagnostics_service_proto,
	} {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				if m := file.Services().Get(i).Methods().Get(j); !m.IsStreamingServer() {
					all = append(all, m)
				}
			}
		}
	}
	return all
}

func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err) // the messages of a linked method are linked too
	}
	return t.New().Interface()
}

func (c *badClient) call(m protoreflect.MethodDescriptor, req proto.Message) error {
	name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	err := c.conn.Invoke(context.Background(), name, req, newMessage(m.Output()))
	c.codes[status.Code(err)]++
	return err
}

// sendOne sends a request of a random method. It returns an error if a write succeeds
// that must be refused.
func (c *badClient) sendOne() error {
	all := methods()
	m := all[c.IntN(len(all))]
	req := newMessage(m.Input())
	c.fill(req.ProtoReflect(), 0)
	options := m.Input().Fields().ByName("options")
	switch {
	case m.Name() == "ProbeUpstream":
		c.spoil(req.ProtoReflect()) // a valid probe would dial
		if c.call(m, req) == nil {
			return fmt.Errorf("%s accepts %v", m.Name(), req)
		}
		return nil
	case options == nil:
		_ = c.call(m, req) // reads, and drains without connections, may succeed
		return nil
	}
	o := &adminv1.WriteOptions{}
	if req.ProtoReflect().Has(options) {
		o = req.ProtoReflect().Get(options).Message().Interface().(*adminv1.WriteOptions)
		o.DryRun, o.RequireProbe = false, 0
	}
	req.ProtoReflect().Set(options, protoreflect.ValueOfMessage(o.ProtoReflect()))
	if strings.HasPrefix(string(m.Name()), "Put") && c.IntN(4) == 0 || m.Name() == "Apply" && c.IntN(2) == 0 {
		// Most random requests are invalid. The few valid ones become dry runs.
		o.DryRun = true
		if c.call(m, req) == nil {
			return nil
		}
		o.DryRun = false
	} else {
		c.poison(req, o)
	}
	if c.call(m, req) == nil {
		return fmt.Errorf("%s accepts %v", m.Name(), req)
	}
	c.refused++
	return nil
}

// poison changes a write so that it must be refused. options are its options.
func (c *badClient) poison(req proto.Message, options *adminv1.WriteOptions) {
	if c.IntN(3) == 0 {
		c.spoil(req.ProtoReflect())
		return
	}
	switch r := req.(type) {
	case *adminv1.ApplyRequest:
		c.poisonApply(r)
	case *adminv1.RollbackRequest:
		r.ExpectedRevision = nil
		switch c.IntN(3) {
		case 0:
			r.Revision = nil
		case 1:
			r.Revision = proto.Int64(1 << 40)
		case 2:
			r.Revision, r.ExpectedRevision = proto.Int64(0), proto.Int64(99)
		}
	case interface{ GetEtag() string }:
		c.poisonDelete(req.ProtoReflect())
	default:
		c.poisonPut(req.ProtoReflect(), options)
	}
}

func (c *badClient) poisonPut(req protoreflect.Message, options *adminv1.WriteOptions) {
	field := req.Descriptor().Fields().Get(0) // the field with the resource
	if c.IntN(10) == 0 {
		req.Clear(field)
		return
	}
	r := req.Mutable(field).Message().Interface().(store.Resource)
	switch c.IntN(4) {
	case 0:
		setText(r, "name", "Not A Name")
	case 1:
		setText(r, "etag", "stale")
		c.change(r)
	case 2:
		// The request is valid until the gateway looks up the name.
		same := proto.Clone(c.one(store.KindOf(r))).(store.Resource)
		setText(same, "etag", "")
		c.change(same)
		req.Set(field, protoreflect.ValueOfMessage(same.ProtoReflect()))
		options.CreateOnly = true
	case 3:
		req.Set(field, protoreflect.ValueOfMessage(c.dangling(store.KindOf(r)).ProtoReflect()))
	}
}

func (c *badClient) poisonDelete(req protoreflect.Message) {
	kind := adminv1.Kind(adminv1.Kind_value["KIND_"+kindOf(req.Descriptor().Name())])
	r := c.one(kind)
	switch c.IntN(3) {
	case 0:
		setText(req.Interface(), "name", "missing")
		setText(req.Interface(), "etag", "")
	case 1:
		setText(req.Interface(), "name", r.GetName())
		setText(req.Interface(), "etag", "stale")
	case 2:
		used := map[adminv1.Kind]string{
			adminv1.Kind_KIND_LISTENER: "web", adminv1.Kind_KIND_UPSTREAM: "up", adminv1.Kind_KIND_CERTIFICATE: "client", adminv1.Kind_KIND_TRUST_BUNDLE: "corp",
		}
		setText(req.Interface(), "name", used[kind]) // "" for routes, which no resource uses
		setText(req.Interface(), "etag", "")
	}
}

// kindOf turns DeleteTrustBundleRequest into TRUST_BUNDLE.
func kindOf(name protoreflect.Name) string {
	s := strings.TrimSuffix(strings.TrimPrefix(string(name), "Delete"), "Request")
	return strings.ToUpper(strings.Replace(s, "tB", "t_B", 1))
}

func (c *badClient) poisonApply(r *adminv1.ApplyRequest) {
	add := func(rs ...store.Resource) {
		for _, one := range rs {
			r.Resources = append(r.Resources, store.Wrap(one))
		}
	}
	switch c.IntN(6) {
	case 0:
		r.Resources = append(r.Resources, &adminv1.Resource{})
	case 1:
		r.Prune = &adminv1.Prune{}
	case 2:
		r.Deletes = append(r.Deletes, &adminv1.ResourceDelete{Kind: adminv1.Kind_KIND_ROUTE, Name: "missing"})
	case 3:
		r.Reset()
		add(bare("new", "127.0.0.1:0"))
		r.ExpectedRevision = proto.Int64(99)
	case 4:
		r.Reset()
		add(bare("new", "127.0.0.1:0"), c.dangling(adminv1.Kind(1+c.IntN(5))))
	case 5:
		// The request is valid, and the gateway binds two sockets before the third
		// fails.
		r.Reset()
		add(bare("a", "127.0.0.1:0"), bare("b", "unix:"+filepath.Join(c.unixDir, "b.sock")), bare("c", c.taken))
		c.Shuffle(len(r.Resources), func(i, j int) { r.Resources[i], r.Resources[j] = r.Resources[j], r.Resources[i] })
	}
}

// one returns an existing resource of a kind.
func (c *badClient) one(k adminv1.Kind) store.Resource {
	i := slices.IndexFunc(c.existing, func(r store.Resource) bool { return store.KindOf(r) == k })
	return c.existing[i]
}

// dangling returns a resource whose only fault is a reference to a resource that
// does not exist.
func (c *badClient) dangling(k adminv1.Kind) store.Resource {
	switch k {
	case adminv1.Kind_KIND_LISTENER:
		l := bare("new", "127.0.0.1:0")
		l.Upstream = "missing"
		return l
	case adminv1.Kind_KIND_ROUTE:
		return &adminv1.Route{Name: "new", Listeners: []string{"web", "missing"}, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{}}}
	case adminv1.Kind_KIND_UPSTREAM:
		return &adminv1.Upstream{Name: "new", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{VerifyName: "x.example", Certificate: "missing"}}}
	case adminv1.Kind_KIND_CERTIFICATE:
		return &adminv1.Certificate{Name: "new", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: filepath.Join(c.unixDir, "missing")}}}
	}
	return &adminv1.TrustBundle{Name: "new", Source: &adminv1.TrustBundle_File{File: filepath.Join(c.unixDir, "missing")}}
}

// change makes a resource differ from the stored one.
func (c *badClient) change(r store.Resource) {
	labels := r.ProtoReflect().Mutable(r.ProtoReflect().Descriptor().Fields().ByName("labels")).Map()
	labels.Set(protoreflect.ValueOfString("changed").MapKey(), protoreflect.ValueOfString("yes"))
}

func setText(m proto.Message, field protoreflect.Name, text string) {
	m.ProtoReflect().Set(m.ProtoReflect().Descriptor().Fields().ByName(field), protoreflect.ValueOfString(text))
}
