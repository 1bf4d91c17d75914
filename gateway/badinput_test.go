package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A guesser fills messages with what a confused or hostile client might send.
type guesser struct {
	*rand.Rand
	texts []string
}

func (g *guesser) fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if g.IntN(3) > 0 && f.Name() != "name" {
			continue
		}
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			entries.Set(protoreflect.ValueOfString(g.text()).MapKey(), protoreflect.ValueOfString(g.text()))
		case f.IsList():
			list := m.Mutable(f).List()
			for range g.IntN(3) {
				if f.Message() != nil {
					e := list.NewElement()
					g.message(e.Message(), depth)
					list.Append(e)
				} else {
					list.Append(g.scalar(f))
				}
			}
		case f.Message() != nil:
			g.message(m.Mutable(f).Message(), depth)
		default:
			m.Set(f, g.scalar(f))
		}
	}
}

func (g *guesser) message(m protoreflect.Message, depth int) {
	if depth < 5 {
		g.fill(m, depth+1)
	}
}

func (g *guesser) text() string { return g.texts[g.IntN(len(g.texts))] }

func (g *guesser) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	number := []int64{0, 1, 2, 80, 443, 1000, -1, 1 << 31 >> 1, -1 << 31}[g.IntN(9)]
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(g.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(g.text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(g.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(g.IntN(f.Enum().Values().Len() + 1)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(number)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(number))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(number) / 3)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(number) / 3)
	}
	panic(fmt.Sprintf("a field of kind %v", f.Kind()))
}

// world is what a write that is refused must leave as it was.
func (g *testGateway) world(dirs ...string) string {
	g.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d\n", g.State().Revision())
	for _, r := range g.State().All() {
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			g.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v %x\n", store.RefOf(r), sha256.Sum256(content))
	}
	for _, l := range g.Status().GetListeners() {
		fmt.Fprintln(&b, "listener", l.GetName(), l.GetState(), l.GetBoundAddress())
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			content := []byte{}
			if d.Type().IsRegular() {
				if content, err = os.ReadFile(path); err != nil {
					return err
				}
			}
			fmt.Fprintf(&b, "%s %v %x\n", path, d.Type(), sha256.Sum256(content))
			return nil
		})
		if err != nil {
			g.t.Fatal(err)
		}
	}
	return b.String()
}

// sockets returns the sockets of this process, as the kernel names them.
func sockets(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	var all []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			all = append(all, to)
		}
	}
	slices.Sort(all)
	return all
}

// Ten thousand writes that are refused, whatever they are refused for, leave the
// revision, the resources, the sockets and the files as they were.
func TestBadWritesChangeNothing(t *testing.T) {
	writes := 1000
	if text := os.Getenv("DRAWBRIDGE_BAD_WRITES"); text != "" {
		var err error
		if writes, err = strconv.Atoi(text); err != nil {
			t.Fatalf("DRAWBRIDGE_BAD_WRITES: %v", err)
		}
	}
	ca := certstest.NewCA(t)
	g := start(t, "")
	files, unix := t.TempDir(), shortDir(t)
	good := ca.Client(t, "client")
	path := writeFile(t, filepath.Join(files, "ca.pem"), ca.TrustPEM())
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), tcpListener("l", "127.0.0.1:0"), tcpListener("u", "unix:"+filepath.Join(unix, "u.sock")),
		&adminv1.TrustBundle{Name: "file", Source: &adminv1.TrustBundle_File{File: path}},
		&adminv1.Upstream{Name: "public", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}, Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{VerifyName: "x.example"}}})...)
	random := &guesser{rand.New(rand.NewPCG(5, 6)), []string{
		"", "l", "u", "up", "client", "corp", "file", "new", "Not A Name", "127.0.0.1:0", g.address("l"), ":0", g.address("u"),
		"unix:" + filepath.Join(unix, "new.sock"), "unix:relative", "example.com", "*.example.com", "/", "/x", "([", "0660", "DNS:x.example",
		path, filepath.Join(files, "missing"), "/etc/shadow", "\x00\x01", strings.Repeat("x", 300),
		string(good.ChainPEM), string(good.KeyPEM), string(ca.TrustPEM()), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "h2",
	}}
	message := func() store.Resource {
		r := store.New(store.Kinds()[random.IntN(len(store.Kinds()))])
		random.fill(r.ProtoReflect(), 0)
		return r
	}
	before, open := g.world(g.dir, files, unix), sockets(t)
	refused := 0
	for refused < writes {
		var e store.Edit
		for range 1 + random.IntN(3) {
			e.Puts = append(e.Puts, puts(message())...)
		}
		if random.IntN(3) == 0 {
			e.Deletes = append(e.Deletes, store.Delete{Kind: adminv1.Kind(random.IntN(7)), Name: random.text(), Etag: random.text()})
		}
		e.DryRun = true
		if _, err := g.Apply(context.Background(), e); err == nil {
			continue // right by chance
		}
		e.DryRun = false
		if _, err := g.Apply(context.Background(), e); err == nil {
			t.Fatalf("a write that its dry run refuses is accepted: %v", e.Puts)
		}
		refused++
	}
	if after := g.world(g.dir, files, unix); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if now := sockets(t); !slices.Equal(now, open) {
		t.Errorf("%d sockets were open, now %d", len(open), len(now))
	}
}
