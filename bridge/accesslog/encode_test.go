package accesslog

import (
	"bytes"
	"encoding/json"
	"net"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/drawbridge-gateway/drawbridge/certs"
)

// whole returns a record with every field set.
func whole() *Record {
	return &Record{
		Kind: Request, Start: time.Date(2026, 1, 2, 3, 4, 5, 6_700_000, time.FixedZone("", 3600)), Duration: 1234567 * time.Microsecond,
		Listener: "web", Client: "192.0.2.7", ClientPort: 50123, Peer: "10.0.0.1:4711", RequestID: "r-1", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		Method: "GET", Host: "a.example", Path: "/x y", Protocol: "HTTP/1.1", Upgrade: "websocket", UserAgent: `curl/8 "beta"`, Code: 200,
		GRPC: true, GRPCStatus: 14, Ended: "upstream reset", Reason: "PEER_CLOSED",
		Route: "api", Upstream: "payments", Endpoint: "10.0.0.7:443", UpstreamProtocol: "HTTP/2.0", Attempts: 2, Reused: true, FromClient: 11, ToClient: 1024,
		Handshake: 1500 * time.Microsecond, Queued: time.Millisecond, Connect: 2 * time.Millisecond, UpstreamHandshake: 3 * time.Millisecond,
		UpstreamHead: 45 * time.Microsecond, FirstByte: 9 * time.Millisecond,
		TLS:         &TLS{Version: "TLS 1.3", Suite: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", Resumed: true},
		UpstreamTLS: &TLS{Version: "TLS 1.2", Suite: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
		ServerName:  "a.example",
		Certificate: certs.Identity{Subject: "CN=alice,O=Example", SHA256Fingerprint: strings.Repeat("ab", 32)},
	}
}

func TestALineOfJSON(t *testing.T) {
	const want = `{"time":"2026-01-02T02:04:05.006Z","kind":"request","client":"192.0.2.7","method":"GET","path":"/x y","protocol":"HTTP/1.1","code":200,` +
		`"user_agent":"curl/8 \"beta\"","bytes_to_client":1024,"listener":"web","client_port":50123,"peer":"10.0.0.1:4711","request_id":"r-1",` +
		`"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","host":"a.example","upgrade":"websocket","grpc_status":14,"ended":"upstream reset","reason":"PEER_CLOSED",` +
		`"route":"api","upstream":"payments","endpoint":"10.0.0.7:443","upstream_protocol":"HTTP/2.0","attempts":2,"upstream_reused":true,"bytes_from_client":11,` +
		`"duration_ms":1234.567,"handshake_ms":1.500,"queued_ms":1.000,"upstream_connect_ms":2.000,"upstream_handshake_ms":3.000,"upstream_head_ms":0.045,"first_byte_ms":9.000,` +
		`"server_name":"a.example","tls_version":"TLS 1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","tls_group":"X25519MLKEM768","tls_resumed":true,` +
		`"client_subject":"CN=alice,O=Example","client_fingerprint":"abababababababababababababababababababababababababababababababab",` +
		`"upstream_tls_version":"TLS 1.2","upstream_tls_cipher":"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256","upstream_tls_resumed":false}` + "\n"
	got := string(JSON.append(nil, whole()))
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("the line is not JSON")
	}
}

func TestALineOfText(t *testing.T) {
	const want = `192.0.2.7 - - [02/Jan/2026:02:04:05 +0000] "GET /x y HTTP/1.1" 200 1024 "-" "curl/8 \"beta\"" listener=web client_port=50123 peer=10.0.0.1:4711 ` +
		`request_id=r-1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 host=a.example upgrade=websocket grpc_status=14 ended="upstream reset" reason=PEER_CLOSED ` +
		`route=api upstream=payments endpoint=10.0.0.7:443 upstream_protocol=HTTP/2.0 attempts=2 upstream_reused=true bytes_from_client=11 ` +
		`duration_ms=1234.567 handshake_ms=1.500 queued_ms=1.000 upstream_connect_ms=2.000 upstream_handshake_ms=3.000 upstream_head_ms=0.045 first_byte_ms=9.000 ` +
		`server_name=a.example tls_version="TLS 1.3" tls_cipher=TLS_AES_128_GCM_SHA256 tls_group=X25519MLKEM768 tls_resumed=true ` +
		`client_subject="CN=alice,O=Example" client_fingerprint=abababababababababababababababababababababababababababababababab ` +
		`upstream_tls_version="TLS 1.2" upstream_tls_cipher=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 upstream_tls_resumed=false` + "\n"
	if got := string(Text.append(nil, whole())); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// Empty fields are omitted, or "-" where the format has a place for them.
func TestALineOfAnEmptyRecord(t *testing.T) {
	r := &Record{Kind: Connection, Start: time.Unix(0, 0), Listener: "db", Ended: "closed"}
	const object = `{"time":"1970-01-01T00:00:00.000Z","kind":"connection","client":"unix:","bytes_to_client":0,"listener":"db","ended":"closed","bytes_from_client":0}` + "\n"
	if got := string(JSON.append(nil, r)); strings.Replace(got, `,"duration_ms":0.000`, "", 1) != object {
		t.Errorf("got  %swant %s", got, object)
	}
	const text = `unix: - - [01/Jan/1970:00:00:00 +0000] "TCP" - 0 "-" "-" listener=db ended=closed bytes_from_client=0 duration_ms=0.000` + "\n"
	if got := string(Text.append(nil, r)); got != text {
		t.Errorf("got  %swant %s", got, text)
	}
}

// Every field of a Record appears in the line, in both formats.
func TestEveryFieldIsInTheLine(t *testing.T) {
	for _, f := range []Format{JSON, Text} {
		line := string(f.append(nil, whole()))
		v := reflect.ValueOf(whole()).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Field(i).IsZero() && name != "Kind" {
				t.Errorf("whole has no %s", name)
			}
			r := whole()
			reflect.ValueOf(r).Elem().Field(i).SetZero()
			if name == "Kind" {
				r.Kind = Connection
			}
			if string(f.append(nil, r)) == line {
				t.Errorf("format %d does not show %s", f, name)
			}
		}
	}
}

func TestSetClientRecordsClientAndPeer(t *testing.T) {
	tcp := func(ip string, port int) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	for _, c := range []struct {
		client, remote net.Addr
		want           Record
	}{
		{tcp("192.0.2.7", 5), tcp("::ffff:192.0.2.7", 5), Record{Client: "192.0.2.7", ClientPort: 5}},
		{tcp("2001:db8::1", 5), tcp("10.0.0.1", 6), Record{Client: "2001:db8::1", ClientPort: 5, Peer: "10.0.0.1:6"}},
		{tcp("192.0.2.7", 5), &net.UnixAddr{Net: "unix"}, Record{Client: "192.0.2.7", ClientPort: 5, Peer: "unix:"}},
		{&net.UnixAddr{Net: "unix"}, &net.UnixAddr{Net: "unix"}, Record{}},
		{nil, tcp("10.0.0.1", 6), Record{}},
	} {
		var r Record
		if r.SetClient(c.client, c.remote); r != c.want {
			t.Errorf("%v over %v: %+v", c.client, c.remote, r)
		}
	}
}

func TestTextsAreEscapedAndBounded(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                   "plain",
		`"\`:                      `\"\\`,
		"a\r\n\tb":                `a\r\n\tb`,
		"\x1b[31m\x7f\x00":        `\u001b[31m\u007f\u0000`,
		"\u009b2J \u2028 \u202e":  `\u009b2J \u2028 \u202e`,
		"\xff\xc3":                `\ufffd\ufffd`,
		"gr\u00fc\u00df \u4e16":   "gr\u00fc\u00df \u4e16",
		"\U000e0001":              `\udb40\udc01`,
		strings.Repeat("a", 1024): strings.Repeat("a", 1024),
		strings.Repeat("a", 1025): strings.Repeat("a", 1021) + "…",
		strings.Repeat("\n", 600): strings.Repeat(`\n`, 510) + "…",
		strings.Repeat("ü", 1024): strings.Repeat("ü", 510) + "…",
	} {
		got := string(appendEscaped(nil, in))
		if got != want {
			t.Errorf("%.40q became %q, want %q", in, got, want)
		}
		var back string
		if err := json.Unmarshal([]byte(`"`+got+`"`), &back); err != nil {
			t.Errorf("%q is not a JSON string: %v", got, err)
		}
		if len(in) < 600 && utf8.ValidString(in) && back != in {
			t.Errorf("%q came back as %q", in, back)
		}
	}
}

var combinedLine = regexp.MustCompile(`^\S+ - - \[[^\]]+\] "(\\.|[^"\\])*" (-?\d+|-) \d+ "-" "(\\.|[^"\\])*"( \w+=("(\\.|[^"\\])*"|[^ "\\=]+))*\n$`)

func FuzzLine(f *testing.F) {
	f.Add("a", "b", "c", "d", 200, int64(5))
	f.Add("\"\n", "\\", "\u2028\x00", "\xff=", 0, int64(-1))
	f.Add(strings.Repeat("\x01", 5000), strings.Repeat("ü", 5000), strings.Repeat(`"`, 5000), strings.Repeat("x ", 5000), -1, int64(1<<62))
	f.Fuzz(func(t *testing.T, a, b, c, d string, n int, big int64) {
		r := whole()
		r.Kind = Kind(n & 1)
		r.Start = time.Unix(big%(1<<36), big)
		texts := []string{a, b, c, d}
		fillTexts(reflect.ValueOf(r).Elem(), &texts)
		fillTexts(reflect.ValueOf(r.TLS).Elem(), &texts)
		fillTexts(reflect.ValueOf(r.UpstreamTLS).Elem(), &texts)
		fillTexts(reflect.ValueOf(&r.Certificate).Elem(), &texts)
		r.Code, r.GRPCStatus, r.Attempts, r.Duration, r.Connect = n, n, n, time.Duration(big), time.Duration(big)
		for _, f := range []Format{JSON, Text} {
			line := f.append(nil, r)
			if bytes.IndexByte(line, '\n') != len(line)-1 || len(line) > maxLine {
				t.Fatalf("%d lines, %d bytes: %.300q", bytes.Count(line, newline), len(line), line)
			}
			for _, c := range string(line[:len(line)-1]) {
				if c < ' ' || c == 0x7f || c >= 0x80 && c <= 0x9f || c == 0x2028 || c == 0x202e {
					t.Fatalf("%q is in the line %.300q", c, line)
				}
			}
			if f == JSON && !json.Valid(line) {
				t.Fatalf("no JSON: %.300s", line)
			}
			// The client's address is not text from a client.
			r.Client = "192.0.2.7"
			if line = f.append(nil, r); f == Text && !combinedLine.Match(line) {
				t.Fatalf("not of the form: %.300s", line)
			}
		}
	})
}

// fillTexts sets the strings of a struct to the texts in turn.
func fillTexts(v reflect.Value, texts *[]string) {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString((*texts)[0])
			*texts = append((*texts)[1:], (*texts)[0])
		}
	}
}

// small returns a typical record: a request over plaintext to TLS.
func small() *Record {
	return &Record{
		Start: time.Unix(1_780_000_000, 0), Duration: time.Millisecond, Listener: "web", Client: "192.0.2.7", ClientPort: 50123,
		Method: "GET", Host: "a.example", Path: "/some/path", Protocol: "HTTP/1.1", UserAgent: "curl/8.5.0", Code: 200,
		Route: "api", Upstream: "payments", Endpoint: "10.0.0.7:443", UpstreamProtocol: "HTTP/1.1", Attempts: 1, Reused: true, ToClient: 1024,
		UpstreamHead: 450 * time.Microsecond,
		UpstreamTLS:  &TLS{Version: "TLS 1.3", Suite: "TLS_AES_128_GCM_SHA256", Group: "X25519"},
	}
}

func BenchmarkLine(b *testing.B) {
	for name, f := range map[string]Format{"json": JSON, "text": Text} {
		b.Run(name, func(b *testing.B) {
			r := small()
			var line []byte
			b.ReportAllocs()
			for b.Loop() {
				line = f.append(line[:0], r)
			}
			b.SetBytes(int64(len(line)))
		})
	}
}
