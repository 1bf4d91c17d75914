package view

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestEventsArePrintedOnePerLine(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	for in, want := range map[string]string{
		`type: EVENT_TYPE_ENDPOINT_HEALTH kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" health: ENDPOINT_HEALTH_DOWN reason: REASON_UNKNOWN_CA message: "no\nCA" count: 1`: "01-02 03:04:05  <31down    > Upstream pay a:1 <31UNKNOWN_CA>: no CA",
		`type: EVENT_TYPE_ENDPOINT_HEALTH kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" health: ENDPOINT_HEALTH_UP`:                                                        "01-02 03:04:05  <32up      > Upstream pay a:1",
		`type: EVENT_TYPE_HANDSHAKE_FAILURE kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" reason: REASON_NOT_TLS count: 7`:                                                 "01-02 03:04:05  <31failed  > Upstream pay a:1 <31NOT_TLS><2 (7 times)>",
		`type: EVENT_TYPE_EXPIRY kind: KIND_TRUST_BUNDLE name: "corp" message: "expires in 6 days"`:                                                                          "01-02 03:04:05  <33expiry  > TrustBundle corp: expires in 6 days",
		`type: EVENT_TYPE_ENDPOINTS_CHANGED kind: KIND_UPSTREAM name: "pay" message: "10.0.0.2:1 added" count: 1`:                                                            "01-02 03:04:05  <33changed > Upstream pay: 10.0.0.2:1 added",
		`type: EVENT_TYPE_ENDPOINT_EJECTED kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" reason: REASON_EXPIRED message: "5 failures in a row" count: 1`:                   "01-02 03:04:05  <31ejected > Upstream pay a:1 <31EXPIRED>: 5 failures in a row",
		`type: EVENT_TYPE_ENDPOINT_RETURNED kind: KIND_UPSTREAM name: "pay" endpoint: "a:1" message: "the ejection has ended" count: 1`:                                      "01-02 03:04:05  <32returned> Upstream pay a:1: the ejection has ended",
		`type: EVENT_TYPE_FILE_LOADED kind: KIND_CERTIFICATE name: "c" revision: 3`:                                                                                          "01-02 03:04:05  <32loaded  > Certificate c",
		`type: EVENT_TYPE_FILE_REFUSED kind: KIND_CERTIFICATE name: "c" message: "the key does not fit"`:                                                                     "01-02 03:04:05  <31refused > Certificate c: the key does not fit",
		`type: 99`: "01-02 03:04:05  <3399      >",
	} {
		e := text(t, &adminv1.Event{}, in)
		e.EventTime = timestamppb.New(at)
		colored := strings.NewReplacer("\x1b[0m", ">", "\x1b[2m", "<2", "\x1b[31m", "<31", "\x1b[32m", "<32", "\x1b[33m", "<33").Replace(EventLine(true, e))
		if colored != want {
			t.Errorf("got  %s\nwant %s", colored, want)
		}
		if plain := EventLine(false, e); strings.Contains(plain, "\x1b") {
			t.Errorf("an escape sequence without a terminal: %q", plain)
		}
	}
}
