package view

import (
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAnExplanationIsPrintedForPeople(t *testing.T) {
	var out strings.Builder
	req := &adminv1.ExplainRouteRequest{Host: "PAY.example:80", Path: "//v2/./x"}
	if err := WriteExplanation(&out, false, req, example(t, &adminv1.ExplainRouteResponse{}, "explain")); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain.txt", out.String())
}
