package gateway

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// testbed returns a text with all state that a refused write must not change.
func (g *testGateway) testbed(dirs ...string) string {
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

// sockets returns the kernel's names of this process's sockets.
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

// Ten thousand writes that are rejected for various reasons change no revision,
// resource, socket or file. The test sends them, and requests of every other unary
// method, through the admin API.
func TestBadWritesChangeNothing(t *testing.T) {
	writes := 10_000
	if alloctest.Race || testing.CoverMode() != "" {
		writes = 1000 // `make stress` sends all of them under the race detector
	}
	if text := os.Getenv("DRAWBRIDGE_BAD_WRITES"); text != "" {
		var err error
		if writes, err = strconv.Atoi(text); err != nil {
			t.Fatalf("DRAWBRIDGE_BAD_WRITES: %v", err)
		}
	}
	ca := certstest.NewCA(t)
	files, unix := t.TempDir(), shortDir(t)
	path := writeFile(t, filepath.Join(files, "ca.pem"), ca.TrustPEM())
	t.Setenv("SSL_CERT_FILE", path) // parsing the system's many roots takes long
	g := start(t, "", func(o *Options) { o.Logger = nil })
	good := ca.Client(t, "client")
	g.put(append(bridgeTo(t, ca, "127.0.0.1:1"), tcpListener("l", "127.0.0.1:0"), tcpListener("u", "unix:"+filepath.Join(unix, "u.sock")),
		&adminv1.TrustBundle{Name: "file", Source: &adminv1.TrustBundle_File{File: path}},
		&adminv1.Upstream{Name: "public", Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}, Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{VerifyName: "x.example"}}},
		&adminv1.Listener{Name: "web", Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_HTTP},
		&adminv1.Route{Name: "r", Listeners: []string{"web"}, Action: &adminv1.Route_Respond{Respond: &adminv1.Respond{}}})...)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	conn, err := grpc.NewClient(g.AdminAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	texts := []string{
		"", "l", "u", "up", "client", "corp", "file", "r", "new", "Not A Name", "127.0.0.1:0", g.address("l"), taken.Addr().String(), ":0", g.address("u"),
		"unix:" + filepath.Join(unix, "new.sock"), "unix:relative", "app.invalid", "*.app.invalid", "/", "/x", "([", "0660", "DNS:x.example",
		path, filepath.Join(files, "missing"), "/etc/shadow", "\x00\x01", strings.Repeat("x", 300), "\xff",
		string(good.ChainPEM), string(good.KeyPEM), string(ca.TrustPEM()), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "h2",
	}
	clients := make([]*badClient, 4)
	filled := &fieldSet{fields: map[protoreflect.FullName]bool{}}
	for i := range clients {
		clients[i] = &badClient{
			messageFiller: messageFiller{Rand: rand.New(rand.NewPCG(5, uint64(i))), texts: texts, filled: filled},
			conn:          conn, existing: g.State().All(), taken: taken.Addr().String(), unixDir: unix, codes: map[codes.Code]int{},
		}
	}
	clients[0].call(methods()[0], newMessage(methods()[0].Input())) // the first call connects
	before, open := g.testbed(g.dir, files, unix), sockets(t)
	var sending sync.WaitGroup
	for _, c := range clients {
		sending.Go(func() {
			for c.refused < writes/len(clients) {
				if err := c.sendOne(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
	if after := g.testbed(g.dir, files, unix); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if now := sockets(t); !slices.Equal(now, open) {
		t.Errorf("%d sockets were open, now %d", len(open), len(now))
	}

	for _, want := range []codes.Code{codes.InvalidArgument, codes.NotFound, codes.Aborted, codes.AlreadyExists, codes.FailedPrecondition} {
		if !slices.ContainsFunc(clients, func(c *badClient) bool { return c.codes[want] > 0 }) {
			t.Errorf("no request was answered with %v", want)
		}
	}
	all := map[protoreflect.FullName]bool{}
	for _, m := range methods() {
		fieldsBelow(m.Input(), all)
	}
	maps.DeleteFunc(all, func(f protoreflect.FullName, _ bool) bool { return filled.fields[f] })
	if len(all) > 0 && writes >= 10_000 {
		t.Errorf("no request had the fields %v", slices.Sorted(maps.Keys(all)))
	}
}
