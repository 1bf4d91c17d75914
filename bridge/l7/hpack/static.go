package hpack

// staticValues are the values of the static table (RFC 7541, appendix A), by index. Index
// 0 does not exist.
var staticValues = [62]string{
	2: "GET", 3: "POST", 4: "/", 5: "/index.html", 6: "http", 7: "https", 8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404",
	14: "500", 16: "gzip, deflate",
}

// staticName returns the index of the first entry of the static table with a name, and how
// many entries have it; 0, 0: the table does not have the name.
func staticName(name string) (index, entries byte) {
	switch name {
	case ":authority":
		return 1, 1
	case ":method":
		return 2, 2
	case ":path":
		return 4, 2
	case ":scheme":
		return 6, 2
	case ":status":
		return 8, 7
	case "accept-charset":
		return 15, 1
	case "accept-encoding":
		return 16, 1
	case "accept-language":
		return 17, 1
	case "accept-ranges":
		return 18, 1
	case "accept":
		return 19, 1
	case "access-control-allow-origin":
		return 20, 1
	case "age":
		return 21, 1
	case "allow":
		return 22, 1
	case "authorization":
		return 23, 1
	case "cache-control":
		return 24, 1
	case "content-disposition":
		return 25, 1
	case "content-encoding":
		return 26, 1
	case "content-language":
		return 27, 1
	case "content-length":
		return 28, 1
	case "content-location":
		return 29, 1
	case "content-range":
		return 30, 1
	case "content-type":
		return 31, 1
	case "cookie":
		return 32, 1
	case "date":
		return 33, 1
	case "etag":
		return 34, 1
	case "expect":
		return 35, 1
	case "expires":
		return 36, 1
	case "from":
		return 37, 1
	case "host":
		return 38, 1
	case "if-match":
		return 39, 1
	case "if-modified-since":
		return 40, 1
	case "if-none-match":
		return 41, 1
	case "if-range":
		return 42, 1
	case "if-unmodified-since":
		return 43, 1
	case "last-modified":
		return 44, 1
	case "link":
		return 45, 1
	case "location":
		return 46, 1
	case "max-forwards":
		return 47, 1
	case "proxy-authenticate":
		return 48, 1
	case "proxy-authorization":
		return 49, 1
	case "range":
		return 50, 1
	case "referer":
		return 51, 1
	case "refresh":
		return 52, 1
	case "retry-after":
		return 53, 1
	case "server":
		return 54, 1
	case "set-cookie":
		return 55, 1
	case "strict-transport-security":
		return 56, 1
	case "transfer-encoding":
		return 57, 1
	case "user-agent":
		return 58, 1
	case "vary":
		return 59, 1
	case "via":
		return 60, 1
	case "www-authenticate":
		return 61, 1
	}
	return 0, 0
}
