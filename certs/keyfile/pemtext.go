package keyfile

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/drawbridge-gateway/drawbridge/certs/safetext"
)

var (
	errUTF16 = errors.New("is text in UTF-16: save it as UTF-8")
	errJKS   = errors.New("is a Java keystore (JKS): `keytool -importkeystore -srckeystore old.jks -destkeystore new.p12 -deststoretype PKCS12` makes a PKCS#12 archive of it")

	errBase64OfPEM = errors.New("is the base64 of PEM text, as in a Kubernetes Secret: decode it with `base64 -d`")
	errEscaped     = errors.New("has the two characters \\n instead of line breaks, as in a JSON string or a variable: `printf '%b'` writes real line breaks")
	errOldBreaks   = errors.New("has line breaks of CR alone: save it with LF or CRLF")
	errOneLine     = errors.New("has a whole PEM block on one line: the BEGIN line, each line of base64 and the END line need a line break")
	errGlued       = errors.New("has a PEM block that begins on the END line of another: the line break between two joined files is missing")
	errIndented    = errors.New("has a PEM block that is indented: remove the white space before its lines")
	errAfterBegin  = errors.New("has other text on the BEGIN line of a PEM block: move it to a line of its own")
	errDashes      = errors.New("has typographic dashes in the BEGIN line of a PEM block: write five hyphens before and after it")
)

// checkBetween rejects text around PEM blocks that is probably a damaged block.
// Any other text is allowed, in any encoding (RFC 7468, section 2): `openssl
// pkcs12` copies friendly names from the archive unchanged.
func checkBetween(text []byte) error {
	if bytes.Contains(text, utf16Rule) {
		return errUTF16
	}
	if bytes.ContainsFunc(text, isBinary) {
		return errors.New("there is binary data: want PEM text alone, or DER alone")
	}
	if err := misformed(text); err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		marked := bytes.HasPrefix(line, []byte("-----")) && (bytes.Contains(line, []byte("BEGIN")) || bytes.Contains(line, []byte("END")))
		switch {
		case marked && bytes.Contains(line, []byte("PRIVATE KEY")):
			return errors.New("there is a damaged PEM block of a private key: want only certificates; remove the key from this file")
		case marked:
			return fmt.Errorf("there is a damaged PEM block at %q", safetext.Printable(string(line), 60))
		case isBase64Line(line):
			return errors.New("there is base64 text outside of a PEM block: its BEGIN line is missing")
		}
	}
	return nil
}

// isBinary reports whether a character occurs in DER but not in text.
func isBinary(r rune) bool { return r < '\t' || r > '\r' && r < ' ' && r != 0x1b }

// isBase64Line reports whether line looks like the inside of a PEM block.
func isBase64Line(line []byte) bool {
	if len(line) < 40 {
		return false
	}
	for _, c := range bytes.TrimRight(line, "=") {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return line[0] != '=' // curl underlines headings with equals signs
}

// isUTF16 reports whether text has a byte order mark of UTF-16, or a PEM line
// in it.
func isUTF16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) ||
		bytes.Contains(text, utf16Rule)
}

// utf16Rule is a part of five hyphens in UTF-16, in either byte order.
var utf16Rule = []byte("-\x00-\x00-\x00-\x00-")

// isJKS reports whether data begins like a Java keystore, JKS or JCEKS.
func isJKS(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")) || bytes.HasPrefix(data, []byte("\xce\xce\xce\xce"))
}

var (
	pemBegin = []byte("-----BEGIN ")
	pemEnd   = []byte("-----END ")
	pemRule  = []byte("-----")
)

// misformed returns an error for PEM text that is damaged in a common way, or nil.
// pem.Decode skips such blocks. The error never quotes the text, which may be a
// key.
func misformed(text []byte) error {
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte(base64.RawStdEncoding.EncodeToString([]byte("-----BEGIN "))[:14])):
		return errBase64OfPEM
	case bytes.Contains(text, []byte(`-----\n`)), bytes.Contains(text, []byte(`-----\r\n`)):
		return errEscaped
	case bytes.Contains(text, pemBegin) && bytes.IndexByte(text, '\r') >= 0 && bytes.IndexByte(text, '\n') < 0:
		return errOldBreaks
	}
	inside := false // in a block with a valid BEGIN line
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		if i := bytes.Index(line, pemBegin); i >= 0 {
			if err := checkBegin(line[:i], line[i+len(pemBegin):]); err != nil {
				return err
			}
			inside = true
			continue
		}
		if hasTypographicDashes(line) {
			return errDashes
		}
		if bytes.HasPrefix(line, pemEnd) {
			inside = false
		}
		if !inside {
			continue
		}
		if i := bytes.IndexFunc(line, func(r rune) bool { return r > unicode.MaxASCII }); i >= 0 {
			r, _ := utf8.DecodeRune(line[i:])
			return fmt.Errorf("has a PEM block with the character %U, which is not base64", r)
		}
	}
	return nil
}

// checkBegin checks the text before and after the words of a BEGIN line.
func checkBegin(before, after []byte) error {
	blank := bytes.TrimLeftFunc(before, func(r rune) bool { return r == ' ' || r == '\t' })
	switch {
	case bytes.Contains(after, pemEnd):
		return errOneLine
	case bytes.HasPrefix(before, pemEnd):
		return errGlued
	case len(before) > 0 && len(blank) == 0:
		return errIndented
	case len(bytes.TrimFunc(blank, isInvisible)) == 0 && len(blank) > 0:
		r, _ := utf8.DecodeRune(blank)
		if r == utf8.RuneError {
			return errors.New("has bytes that are not UTF-8 before the BEGIN line of a PEM block: remove them")
		}
		return fmt.Errorf("has the invisible character %U before the BEGIN line of a PEM block: remove it", r)
	}
	if _, rest, ok := bytes.Cut(after, pemRule); ok && len(rest) > 0 {
		return errAfterBegin
	}
	return nil
}

// isInvisible reports whether editors and web pages do not show r.
func isInvisible(r rune) bool {
	return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError
}

// hasTypographicDashes finds BEGIN lines that a word processor has changed.
func hasTypographicDashes(line []byte) bool {
	_, after, ok := bytes.Cut(line, []byte("BEGIN "))
	if !ok || !slices.ContainsFunc([]string{"CERTIFICATE", "PRIVATE KEY", "X509 CRL"}, func(kind string) bool { return bytes.Contains(after, []byte(kind)) }) {
		return false
	}
	return bytes.ContainsFunc(line, func(r rune) bool { return r > unicode.MaxASCII && unicode.Is(unicode.Pd, r) })
}

// notPKCS12 names the format that was given instead of an archive, or returns
// nil.
func notPKCS12(data []byte) error {
	text := bytes.TrimSpace(data)
	switch {
	case isJKS(data):
		return errJKS
	case pemBegins(data):
		return errors.New("is PEM text, not a PKCS#12 archive: use it as a chain and a private key in PEM")
	case len(text) > 0 && bytes.HasPrefix(text, []byte("MI")):
		der := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(der, text)
		if err == nil && IsPKCS12(der[:n]) {
			return errors.New("is the base64 of a PKCS#12 archive: decode it with `base64 -d`")
		}
	}
	return nil
}

// ExplainMark returns a note for the error about a wrong passphrase if the
// passphrase begins with a byte order mark, which some editors write at the start
// of a file. Otherwise it returns "".
func ExplainMark(passphrase []byte) string {
	mark := ""
	switch {
	case bytes.HasPrefix(passphrase, []byte("\xef\xbb\xbf")):
		mark = "save the file without it"
	case isUTF16(passphrase):
		mark = "the file is in UTF-16; save it as UTF-8 without the mark"
	default:
		return ""
	}
	return ": it begins with a byte order mark, which is not part of the passphrase; " + mark
}
