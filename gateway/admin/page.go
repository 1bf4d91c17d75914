package admin

import (
	"encoding/base64"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	maxPage = 1000 // resources on a page, also the default

	// A page also ends before it has this many bytes, unless its first
	// resource alone has: most gRPC clients refuse messages above 4 MiB.
	maxPageBytes = 3 << 20
)

// pageOf returns the page of the state's resources that size and token ask
// for, and the token of the next one, "" for none. A token names the last
// resource of the page before, so that what is added or deleted between two
// calls neither repeats nor skips any other.
func pageOf(state *store.State, k adminv1.Kind, size int32, token string) ([]store.Resource, string, error) {
	all := state.List(k)
	if token != "" {
		last, ok := parseToken(k, token)
		if !ok {
			return nil, "", invalid.Errorf(invalid.Argument, "page_token", "must be empty or the next_page_token of an answer to the same method")
		}
		all = all[sort.Search(len(all), func(i int) bool { return all[i].GetName() > last }):]
	}
	most := maxPage
	if size > 0 {
		most = int(min(size, maxPage))
	}
	n, bytes := 0, 0
	for ; n < len(all) && n < most; n++ {
		bytes += proto.Size(all[n])
		if bytes > maxPageBytes && n > 0 {
			break
		}
	}
	if n == len(all) {
		return all, "", nil
	}
	return all[:n], formatToken(k, all[n-1].GetName()), nil
}

// A token is the kind's number and the name, in base64 because clients must
// not make their own.
func formatToken(k adminv1.Kind, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(int(k)) + "/" + last))
}

func parseToken(k adminv1.Kind, token string) (last string, ok bool) {
	const longest = 100 // encoded; a name has at most 63 bytes
	if len(token) > longest {
		return "", false
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", false
	}
	last, ok = strings.CutPrefix(string(text), strconv.Itoa(int(k))+"/")
	// Go's decoder skips line ends; a token is only what was handed out.
	return last, ok && last != "" && token == formatToken(k, last)
}
