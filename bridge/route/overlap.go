package route

import (
	"slices"
	"strings"
)

// A patternIndex finds the name patterns that overlap another one. All its patterns have
// wildcards. The patterns with wildcards in the same places are a shape; the time to
// find or add a pattern is proportional to the number of shapes, not of patterns.
type patternIndex struct {
	shapes []*patternShape
}

// A patternShape holds the patterns with the same number of segments and wildcards in the
// same places.
type patternShape struct {
	wild     []bool // wildcards by segment
	patterns []ownedPattern
	views    []patternView
}

// A patternView finds the patterns of a shape that overlap a pattern of another shape.
// Two patterns overlap if they are equal in all segments where neither has a wildcard.
type patternView struct {
	of       *patternShape
	byCommon map[string][]owner
}

type ownedPattern struct {
	segments []string
	owner    owner
}

// shape returns the shape of a pattern, which it adds if it is new.
func (x *patternIndex) shape(segments []string) *patternShape {
	wild := make([]bool, len(segments))
	for i, s := range segments {
		wild[i] = s == "*"
	}
	for _, s := range x.shapes {
		if slices.Equal(s.wild, wild) {
			return s
		}
	}
	s := &patternShape{wild: wild}
	x.shapes = append(x.shapes, s)
	return s
}

// overlapping calls yield with the owner of each pattern that overlaps the given one.
func (x *patternIndex) overlapping(pattern string, yield func(owner)) {
	segments := strings.Split(pattern, "/")
	own := x.shape(segments)
	for _, other := range x.shapes {
		if len(other.wild) != len(segments) {
			continue
		}
		for _, o := range other.view(own)[other.common(own, segments)] {
			yield(o)
		}
	}
}

// add adds a pattern.
func (x *patternIndex) add(pattern string, by owner) {
	segments := strings.Split(pattern, "/")
	s := x.shape(segments)
	s.patterns = append(s.patterns, ownedPattern{segments, by})
	for _, v := range s.views {
		key := s.common(v.of, segments)
		v.byCommon[key] = append(v.byCommon[key], by)
	}
}

// common returns the segments where neither shape has a wildcard.
func (s *patternShape) common(other *patternShape, segments []string) string {
	var b strings.Builder
	for i, segment := range segments {
		if !s.wild[i] && !other.wild[i] {
			b.WriteString(segment)
		}
		b.WriteByte('/')
	}
	return b.String()
}

// view returns the patterns of s by their segments where neither s nor other has a
// wildcard.
func (s *patternShape) view(other *patternShape) map[string][]owner {
	for _, v := range s.views {
		if v.of == other {
			return v.byCommon
		}
	}
	v := patternView{other, map[string][]owner{}}
	for _, p := range s.patterns {
		key := s.common(other, p.segments)
		v.byCommon[key] = append(v.byCommon[key], p.owner)
	}
	s.views = append(s.views, v)
	return v.byCommon
}
