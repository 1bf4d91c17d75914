// Package manifest reads and writes configuration files: lists of YAML or JSON documents,
// each with a kind and the fields of a resource.
//
// Reading is strict. Unknown fields, duplicate fields and wrong types are faults. All
// faults are reported at once, each with its file, line, document and field. A Manifest
// is immutable. It remembers the place of every field, so that a gateway's faults about a
// request can be reported with their places in the file.
package manifest

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// MaxSize is the maximum size of a file in bytes, and of one message to a gateway.
const MaxSize = 128 << 20

// A Source is the content of a file.
type Source struct {
	Name string // used in faults
	Dir  string // an absolute directory; relative paths in the file start there
	Data []byte
}

// A Document is a resource and its place.
type Document struct {
	Place    Place
	Resource *adminv1.Resource

	node *yaml.Node // the expanded document; used by Locate
}

// A Manifest holds the resources of some files. It is immutable.
type Manifest struct {
	Documents []Document
}

// Resources returns the resources in the order of the files.
func (m *Manifest) Resources() []*adminv1.Resource {
	rs := make([]*adminv1.Resource, len(m.Documents))
	for i := range m.Documents {
		rs[i] = m.Documents[i].Resource
	}
	return rs
}

// Parse reads sources as one manifest. Paths in them become absolute. An error
// is Faults.
func Parse(sources ...Source) (*Manifest, error) {
	var (
		m      Manifest
		faults Faults
		seen   = make(map[string]Place)
	)
	for _, src := range sources {
		for _, root := range parseNodes(src, &faults) {
			doc, ok := parseDocument(src, root, &faults)
			if !ok {
				continue
			}
			id := doc.Place.Kind + "/" + doc.Place.Name
			if first, dup := seen[id]; dup && doc.Place.Name != "" {
				faults = append(faults, Fault{Place: doc.Place, Field: "name",
					Message: fmt.Sprintf("the same %s is already at %s:%d", doc.Place.Kind, first.File, first.Line)})
				continue
			}
			seen[id] = doc.Place
			m.Documents = append(m.Documents, doc)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return &m, nil
}

// parseDocument parses root as a resource. If it is not valid, it adds faults and returns
// false.
func parseDocument(src Source, root rootNode, faults *Faults) (Document, bool) {
	before := len(*faults)
	d := decoder{place: Place{File: src.Name, Line: root.node.Line, Document: root.number}, faults: faults, aliased: maxAliased}

	n := d.expand(root.node, "", 0, false)
	if n == nil {
		return Document{}, false
	}
	if n.Kind != yaml.MappingNode {
		d.fault(n, "", "must be a resource: kind, name and further fields, not %s", describe(n))
		return Document{}, false
	}

	// Parse kind and name first, so that all other faults can name their resource.
	kindNode, rest := takeKey(n, "kind")
	if name, _ := takeKey(n, "name"); name != nil && name.Kind == yaml.ScalarNode {
		d.place.Name = name.Value
	}
	if kindNode == nil {
		d.fault(n, "kind", "is missing; must be one of %s", strings.Join(KindNames(), ", "))
		return Document{}, false
	}
	if kindNode.Kind != yaml.ScalarNode {
		d.fault(kindNode, "kind", "must be one of %s, not %s", strings.Join(KindNames(), ", "), describe(kindNode))
		return Document{}, false
	}
	kind, err := ParseKind(kindNode.Value)
	if err != nil {
		d.fault(kindNode, "kind", "%v", err)
		return Document{}, false
	}
	d.place.Kind = KindName(kind)

	res := &adminv1.Resource{}
	body := res.ProtoReflect().Mutable(resourceField(kind)).Message()
	d.message(body, rest, "")
	if len(*faults) > before {
		return Document{}, false
	}
	makeAbsolute(res, src.Dir)
	return Document{Place: d.place, Resource: res, node: rest}, true
}

// takeKey returns the value of key in mapping n, or nil, and n without it.
func takeKey(n *yaml.Node, key string) (*yaml.Node, *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			rest := *n
			rest.Content = append(append([]*yaml.Node{}, n.Content[:i]...), n.Content[i+2:]...)
			return n.Content[i+1], &rest
		}
	}
	return nil, n
}

// makeAbsolute makes relative file names in r absolute, starting at dir, because the
// gateway that opens the files runs in another directory.
func makeAbsolute(r *adminv1.Resource, dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if files := r.GetCertificate().GetFiles(); files != nil {
		abs(&files.CertificatePath)
		abs(&files.PrivateKeyPath)
		abs(&files.PassphrasePath)
	}
	if file, ok := r.GetTrustBundle().GetSource().(*adminv1.TrustBundle_File); ok {
		abs(&file.File)
	}
	for _, crl := range r.GetTrustBundle().GetCrls() {
		if file, ok := crl.GetSource().(*adminv1.Crl_File); ok {
			abs(&file.File)
		}
	}
}

// Body returns the resource inside r, or nil.
func Body(r *adminv1.Resource) proto.Message {
	m := r.ProtoReflect()
	fd := m.WhichOneof(resourceOneof())
	if fd == nil {
		return nil
	}
	return m.Get(fd).Message().Interface()
}

// FieldName returns the name of the field that holds the resource inside r:
// "trust_bundle"; or "" if r is empty.
func FieldName(r *adminv1.Resource) string {
	fd := r.ProtoReflect().WhichOneof(resourceOneof())
	if fd == nil {
		return ""
	}
	return string(fd.Name())
}

func resourceOneof() protoreflect.OneofDescriptor {
	return (*adminv1.Resource)(nil).ProtoReflect().Descriptor().Oneofs().ByName("kind")
}
