package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Record is the record of one revision, and the step that the revision made.
type Record struct {
	*revisions.Record
	Step store.Step
}

// The parts of a record or checkpoint. Each part is a byte for its kind, its length as a
// varint, and its content.
const (
	partRevision = 1 // an adminv1.Revision
	partPrior    = 2 // kind, length of the name, name, length of the digest, digest, resource
	partAbsent   = 3 // kind, name: a resource that did not exist before
	partPut      = 4 // kind, resource
	partDelete   = 5 // kind, name
)

var errCut = errors.New("it is cut short or damaged")

type encoder struct {
	out []byte
	err error
}

func (e *encoder) part(kind byte, content ...[]byte) {
	size := 0
	for _, c := range content {
		size += len(c)
	}
	e.out = binary.AppendUvarint(append(e.out, kind), uint64(size))
	for _, c := range content {
		e.out = append(e.out, c...)
	}
}

func (e *encoder) message(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	e.err = errors.Join(e.err, err)
	return b
}

func withLength(s string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(s))), s...)
}

func kindByte(k adminv1.Kind) []byte { return []byte{byte(k)} }

// encodeRecord returns the content of a record.
func encodeRecord(r *revisions.Record, step store.Step) ([]byte, error) {
	e := &encoder{}
	e.part(partRevision, e.message(r.Revision))
	for _, p := range r.Priors {
		if p.Resource == nil {
			e.part(partAbsent, kindByte(p.Ref.Kind), []byte(p.Ref.Name))
			continue
		}
		e.part(partPrior, kindByte(p.Ref.Kind), withLength(p.Ref.Name), withLength(p.Files), e.message(p.Resource))
	}
	e.step(step)
	return e.out, e.err
}

// encodeState returns the content of a checkpoint.
func encodeState(s *store.State) ([]byte, error) {
	e := &encoder{}
	e.step(store.Step{Puts: s.All()})
	return e.out, e.err
}

func (e *encoder) step(step store.Step) {
	for _, r := range step.Puts {
		e.part(partPut, kindByte(store.KindOf(r)), e.message(r))
	}
	for _, ref := range step.Deletes {
		e.part(partDelete, kindByte(ref.Kind), []byte(ref.Name))
	}
}

// decode returns what encodeRecord or encodeState wrote for a revision.
func decode(revision int64, content []byte) (*Record, error) {
	r := &Record{Record: &revisions.Record{}, Step: store.Step{Revision: revision}}
	for len(content) > 0 {
		kind := content[0]
		size, n := binary.Uvarint(content[1:])
		if n <= 0 || size > uint64(len(content)-1-n) {
			return nil, errCut
		}
		end := 1 + n + int(size)
		if err := r.take(kind, content[1+n:end]); err != nil {
			return nil, err
		}
		content = content[end:]
	}
	return r, nil
}

// take adds one part to the record.
func (r *Record) take(part byte, content []byte) error {
	if part == partRevision {
		r.Revision = new(adminv1.Revision)
		return proto.Unmarshal(content, r.Revision)
	}
	if len(content) == 0 || !store.ValidKind(adminv1.Kind(content[0])) {
		return errCut
	}
	kind, rest := adminv1.Kind(content[0]), content[1:]
	switch part {
	case partPrior:
		name, rest, ok := cutText(rest)
		files, rest, also := cutText(rest)
		if !ok || !also {
			return errCut
		}
		prior := revisions.Prior{Ref: store.Ref{Kind: kind, Name: name}, Files: files, Resource: store.New(kind)}
		r.Priors = append(r.Priors, prior)
		return proto.Unmarshal(rest, prior.Resource)
	case partAbsent:
		r.Priors = append(r.Priors, revisions.Prior{Ref: store.Ref{Kind: kind, Name: string(rest)}})
	case partPut:
		put := store.New(kind)
		r.Step.Puts = append(r.Step.Puts, put)
		return proto.Unmarshal(rest, put)
	case partDelete:
		r.Step.Deletes = append(r.Step.Deletes, store.Ref{Kind: kind, Name: string(rest)})
	default:
		return fmt.Errorf("it has a part %d, which this version does not know", part)
	}
	return nil
}

// cutText removes a text that withLength wrote from the front of content.
func cutText(content []byte) (text string, rest []byte, ok bool) {
	size, n := binary.Uvarint(content)
	if n <= 0 || size > uint64(len(content)-n) {
		return "", nil, false
	}
	return string(content[n : n+int(size)]), content[n+int(size):], true
}
