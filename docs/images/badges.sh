#!/usr/bin/env bash
# Draws docs/images/badges.svg: what .ci/run proves on every change.
x=0
body=
badge() { # label, value
	local lw=$((${#1} * 7 + 12)) vw=$((${#2} * 7 + 12))
	body+="<g transform=\"translate($x 0)\"><rect width=\"$lw\" height=\"20\" rx=\"3\" fill=\"#57606a\"/><rect x=\"$((lw - 3))\" width=\"$((vw + 3))\" height=\"20\" rx=\"3\" fill=\"#1a7f37\"/>"
	body+="<text x=\"6\" y=\"14\">$1</text><text x=\"$((lw + 6))\" y=\"14\">$2</text></g>"
	x=$((x + lw + vw + 6))
}
badge "race detector" "clean"
badge "h2spec" "passes"
badge "gRPC interop" "14 of 14"
badge "nginx, HAProxy, OpenSSL, curl" "real servers"
badge "govulncheck" "passes"
badge "README tour" "runs"
printf '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="20" role="img" aria-label="What .ci/run proves: race detector, h2spec, gRPC interop, real servers, govulncheck, README tour" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#fff">%s</svg>\n' "$x" "$body"
