package l7

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The corpora in testdata/corpus have this format.
//
//	# a comment, up to the end of the line
//	== the name of a case
//	the expected outcome
//	| a line that is sent, which ends in carriage return and line feed
//	|
//	| a line without a line end, because it ends in a backslash\
//	< a line that the upstream answers with
//	> a line that must arrive, at the upstream or at the client
//
// In lines, \r \n \t \\ and \xff mean the same as in Go, and \{1000 ab} stands
// for ab repeated 1000 times. Empty lines between cases are ignored.
type corpusCase struct {
	name, verdict string
	sent          string // |
	answer        string // <
	want          string // >
	line          int    // where the case begins in its file

	// The lines of sent and answer, without their ends.
	sentLines, answerLines []string
}

var update = flag.Bool("update", false, "write what arrives into the corpora")

func readCorpus(t testing.TB, name string) []*corpusCase {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "corpus", name))
	if err != nil {
		t.Fatal(err)
	}
	var all []*corpusCase
	names := map[string]bool{}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if title, ok := strings.CutPrefix(line, "== "); ok {
			if names[title] {
				t.Fatalf("%s:%d: a second case of this name", name, i+1)
			}
			names[title] = true
			all = append(all, &corpusCase{name: title, line: i + 1})
			continue
		}
		c := all[len(all)-1]
		text := func() string {
			s, err := unescape(strings.TrimPrefix(line[1:], " "))
			if err != nil {
				t.Fatalf("%s:%d: %v", name, i+1, err)
			}
			return s
		}
		switch line[0] {
		case '|':
			c.sent += text()
			c.sentLines = append(c.sentLines, strings.TrimSuffix(text(), "\r\n"))
		case '<':
			c.answer += text()
			c.answerLines = append(c.answerLines, strings.TrimSuffix(text(), "\r\n"))
		case '>':
			c.want += text()
		default:
			if c.verdict != "" {
				t.Fatalf("%s:%d: cannot parse this line", name, i+1)
			}
			c.verdict = line
		}
	}
	return all
}

var (
	repeats = regexp.MustCompile(`\\\{([0-9]+) ([^}]*)\}`)
	escapes = regexp.MustCompile(`\\(?:[rnt\\]|x[0-9a-f]{2}|.|$)`)
)

// unescape returns the bytes that a line of a corpus stands for.
func unescape(line string) (string, error) {
	end := "\r\n"
	line = repeats.ReplaceAllStringFunc(line, func(e string) string {
		m := repeats.FindStringSubmatch(e)
		n, _ := strconv.Atoi(m[1])
		return strings.Repeat(m[2], n)
	})
	if open := strings.TrimSuffix(line, `\`); open != line && (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1 {
		line, end = open, ""
	}
	var err error
	line = escapes.ReplaceAllStringFunc(line, func(e string) string {
		switch e[1:] {
		case "r":
			return "\r"
		case "n":
			return "\n"
		case "t":
			return "\t"
		case `\`:
			return `\`
		}
		if e[1] == 'x' && len(e) == 4 {
			n, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(n)})
		}
		err = fmt.Errorf("%q is not an escape", e)
		return ""
	})
	return line + end, err
}

// escape returns the lines, each after mark, that stand for s.
func escape(mark, s string) string {
	var b strings.Builder
	for s != "" {
		line, rest, ended := strings.Cut(s, "\r\n")
		s = rest
		b.WriteString(strings.TrimSuffix(mark+" ", " "))
		if line != "" {
			b.WriteByte(' ')
		}
		for _, c := range []byte(line) {
			switch {
			case c == '\r':
				b.WriteString(`\r`)
			case c == '\n':
				b.WriteString(`\n`)
			case c == '\t':
				b.WriteString(`\t`)
			case c == '\\':
				b.WriteString(`\\`)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, `\x%02x`, c)
			default:
				b.WriteByte(c)
			}
		}
		if !ended {
			b.WriteByte('\\')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// updateCorpus writes into a corpus what arrived in each case that has changed.
func updateCorpus(t *testing.T, name string, all []*corpusCase) {
	if !*update {
		return
	}
	path := filepath.Join("testdata", "corpus", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	next := 0
	var want string
	flush := func() { out.WriteString(want); want = "" }
	for i, line := range strings.SplitAfter(string(b), "\n") {
		if next < len(all) && i+1 == all[next].line {
			want = escape(">", all[next].want)
			next++
		}
		switch {
		case strings.HasPrefix(line, ">"):
			continue
		case strings.TrimSpace(line) == "":
			flush()
		}
		out.WriteString(line)
	}
	flush()
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLinesOfACorpusStandForBytes(t *testing.T) {
	for line, want := range map[string]string{
		``:                     "\r\n",
		`a`:                    "a\r\n",
		`a\`:                   "a",
		`a\\`:                  "a\\\r\n",
		`a\\\`:                 `a\`,
		`\r\n\t\x00\xff\\x`:    "\r\n\t\x00\xff\\x\r\n",
		`<\{3 ab}>\{2  }|`:     "<ababab>  |\r\n",
		`GET / HTTP/1.1\nX: y`: "GET / HTTP/1.1\nX: y\r\n",
	} {
		got, err := unescape(line)
		if got != want || err != nil {
			t.Errorf("%s: %q %v", line, got, err)
		}
		back := ""
		for _, l := range strings.Split(strings.TrimSuffix(escape(">", want), "\n"), "\n") {
			s, err := unescape(strings.TrimPrefix(l[1:], " "))
			if err != nil {
				t.Error(err)
			}
			back += s
		}
		if back != want {
			t.Errorf("%q was written %s", want, escape(">", want))
		}
	}
	if _, err := unescape(`\q`); err == nil {
		t.Error("an invalid escape was accepted")
	}
}
