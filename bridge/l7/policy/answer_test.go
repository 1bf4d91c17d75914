package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestAnswersForGRPC(t *testing.T) {
	for content, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "Application/GRPC; x=y": true, "application/grpc-web": false, "text/plain": false} {
		if IsGRPC(fields("content-type: "+content)) != want {
			t.Errorf("%s", content)
		}
	}
	var r message.Response
	if body := GatewayTimeout.Write(&r, true); r.Status != 200 || body != "" || !slices.Equal(r.Fields, fields("Content-Type: application/grpc", "Grpc-Status: 4", "Grpc-Message: gateway timeout")) {
		t.Errorf("%q %+v", body, r)
	}
}

func TestLogTextIsBoundedAndPrintable(t *testing.T) {
	got := Bounded("a\n\x1b[31m" + strings.Repeat("x", 1000))
	if strings.ContainsAny(got, "\n\x1b") || len(got) > maxText+20 || !strings.HasSuffix(got, "…") {
		t.Errorf("%q", got)
	}
}
