package resolve

import (
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A response holds the data of a DNS response that package net omits.
type response struct {
	name      string // name in the question
	kind      dnsmessage.Type
	final     bool          // the answer is final, even if empty
	addresses bool          // the answer contains addresses
	ttl       time.Duration // the lowest TTL of the answer's records
	hasTTL    bool          // ttl is set
}

// readResponse parses a message from a connection on which the query ID was
// sent. It returns false if the message is not a complete response to it.
func readResponse(message []byte, id uint16) (response, bool) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil || !header.Response || header.ID != id || header.Truncated {
		return response{}, false
	}
	q, err := p.Question()
	if err != nil {
		return response{}, false
	}
	r := response{
		name:  q.Name.String(),
		kind:  q.Type,
		final: header.RCode == dnsmessage.RCodeSuccess || header.RCode == dnsmessage.RCodeNameError,
	}
	if err := p.SkipAllQuestions(); err != nil {
		return response{}, false
	}
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return r, true
		}
		if err != nil {
			return response{}, false
		}
		ttl := time.Duration(h.TTL) * time.Second
		if h.TTL > 1<<31-1 {
			ttl = 0 // RFC 2181, section 8
		}
		if !r.hasTTL || ttl < r.ttl {
			r.ttl, r.hasTTL = ttl, true
		}
		r.addresses = r.addresses || h.Type == dnsmessage.TypeA || h.Type == dnsmessage.TypeAAAA
		if err := p.SkipAnswer(); err != nil {
			return response{}, false
		}
	}
}
