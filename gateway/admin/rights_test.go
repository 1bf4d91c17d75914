package admin

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The rights are compared with what the server serves and with what the .proto files
// describe, both ways: a method without a right cannot be called, and a right without a
// method protects nothing.
func TestEveryMethodHasARightAndEveryRightAMethod(t *testing.T) {
	rights := rights()
	served := map[string]bool{}
	for service, info := range start(t).grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			served["/"+service+"/"+m.Name] = true
		}
	}
	for _, f := range apiFiles() {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
				if !served[name] {
					t.Errorf("%s is described but not served", name)
				}
				want := adminv1.Right_RIGHT_READ
				switch {
				case m.Input().Fields().ByName("options") != nil, m.Name() == "Confirm":
					want = adminv1.Right_RIGHT_WRITE
				case m.Name() == "Backup":
					want = adminv1.Right_RIGHT_SECRET
				case actsOnTraffic[m.Name()]:
					want = adminv1.Right_RIGHT_OPERATE
				}
				if got := rights[name]; got != want {
					t.Errorf("%s needs %v, want %v", name, got, want)
				}
			}
		}
	}
	for name := range served {
		if _, ok := rights[name]; !ok {
			t.Errorf("%s has no right", name)
		}
	}
	for name := range rights {
		if !served[name] {
			t.Errorf("%s has a right but is not served", name)
		}
	}
}

var actsOnTraffic = map[protoreflect.Name]bool{"FlushSessions": true, "DrainConnections": true, "CloseConnections": true}

func TestNamesThatOnlyResembleAMethodHaveNoRight(t *testing.T) {
	const apply = "/drawbridge.admin.v1.AdminService/Apply"
	rights := rights()
	if rights[apply] != adminv1.Right_RIGHT_WRITE {
		t.Fatal("Apply is not a write")
	}
	for _, name := range []string{
		"", "/", "drawbridge.admin.v1.AdminService/Apply", "/" + apply, apply + "/", strings.ToLower(apply),
		"/drawbridge.admin.v1.AdminService//Apply", "/drawbridge.admin.v1.StatusService/Rollback", apply + "?", " " + apply,
	} {
		if right, ok := rights[name]; ok {
			t.Errorf("%q has %v", name, right)
		}
	}
}

// A path without its leading slash once slipped through grpc-go's interceptors
// (CVE-2026-33186). The test sends raw frames, because no client would send
// this path.
func TestAPathWithoutItsSlashIsDeniedAndLogged(t *testing.T) {
	for _, path := range []string{
		"drawbridge.admin.v1.AdminService/DeleteUpstream", "//drawbridge.admin.v1.AdminService/DeleteUpstream", "/x", "x", "/no.such.Service/Method",
	} {
		t.Run(path, func(t *testing.T) {
			r := start(t)
			putUpstreams(t, r, 1)
			headers := rawCall(t, r.socket, path, []byte{0, 0, 0, 0, 8, 10, 6, 'u', '-', '0', '0', '0', '0'})
			if headers["grpc-status"] != fmt.Sprint(int(codes.Unimplemented)) {
				t.Errorf("answered with %v", headers)
			}
			if r.gateway.State().Len(adminv1.Kind_KIND_UPSTREAM) != 1 {
				t.Error("the upstream was deleted")
			}
			if log := r.log.String(); !strings.Contains(log, "denied: method="+path) || !strings.Contains(log, "client=uid:") {
				t.Errorf("no line of it in the log:\n%s", log)
			}
		})
	}
}

// rawCall sends a call of path as HTTP/2 frames and returns the headers of the
// response.
func rawCall(t *testing.T, socket, path string, body []byte) map[string]string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, body),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			got := map[string]string{}
			for _, f := range h.Fields {
				got[f.Name] = f.Value
			}
			return got
		}
	}
}

func TestUnknownMethodsShareOneMetric(t *testing.T) {
	r := start(t)
	for i := range 3 {
		err := r.conn.Invoke(t.Context(), fmt.Sprintf("/no.such.Service/Method%d", i), &emptypb.Empty{}, &emptypb.Empty{})
		wantCode(t, err, codes.Unimplemented)
	}
	found := false
	for _, interval := range r.sink.Data() {
		interval.RLock()
		for name, c := range interval.Counters {
			if strings.Contains(name, "Method0") {
				t.Errorf("a caller made the metric %s", name)
			}
			if name == "drawbridge.admin.requests;method=unknown;code=Unimplemented" {
				found = c.Count == 3
			}
		}
		interval.RUnlock()
	}
	if !found {
		t.Errorf("no count of them: %v", r.sink.Data())
	}
}
