package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

var serialSeen = regexp.MustCompile(`(web-[12]|echo): your client certificate is CN=([a-z0-9-]+), serial ([0-9a-f]+)\n`)

func TestDemoOnceShowsRealAnswersAndLeavesNothing(t *testing.T) {
	tmp := tempDir(t)
	t.Setenv("TMPDIR", tmp)
	r := shell{}.run(t.Context(), "demo", "--once")
	r.want(t, exit.OK, "$ curl http://127.0.0.1:", "$ echo hello | nc -N 127.0.0.1 ", "\nhello\n")
	seen := serialSeen.FindAllStringSubmatch(r.out, -1)
	if len(seen) != 3 || seen[0][1] == seen[1][1] || seen[0][3] != seen[2][3] {
		t.Errorf("want both web servers and the echo server, and one serial:\n%s", r.out)
	}
	if r.err != "" || strings.Contains(r.out, "\x1b") {
		t.Errorf("noise: %q", r.err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The test runs the commands that the demo prints.
func TestDemoCommandsWorkAsPrinted(t *testing.T) {
	tmp := tempDir(t)
	t.Setenv("TMPDIR", tmp)
	r := start(t, nil, "demo")
	r.out.until(t, "Ctrl-C stops everything", 1)
	printed := r.out.String()
	sh := shell{env: make(map[string]string)}
	web := ""
	answers := new(bytes.Buffer)
	_, commands, _ := strings.Cut(printed, "Try it")
	for line := range strings.Lines(commands) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "export":
			name, value, _ := strings.Cut(words[1], "=")
			sh.env[name] = value
		case words[0] == "drawbridge":
			sh.run(t.Context(), words[1:]...).want(t, exit.OK)
		case words[0] == "curl":
			web = words[1]
			answer, err := curl(t.Context(), web)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			answers.WriteString(answer)
		}
	}
	seen := serialSeen.FindAllStringSubmatch(answers.String(), -1)
	if len(seen) != 2 || seen[0][2] != "gateway" || seen[1][2] != "gateway-2" || seen[0][3] == seen[1][3] {
		t.Errorf("want the first client certificate, then the second:\n%s", answers)
	}
	if !strings.Contains(answers.String(), "hello from a route") {
		t.Errorf("no answer from the new route:\n%s", answers)
	}
	if code := r.stop(); code != exit.OK {
		t.Errorf("exit code %d: %s", code, r.log)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// curl returns the body of a successful response.
func curl(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	body, err := io.ReadAll(res.Body)
	return string(body), err
}
