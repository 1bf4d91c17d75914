// Package proc reads from /proc what a process and all its descendants have
// used.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Tree is a process with its descendants.
type Tree struct {
	// PID is the process at the root.
	PID int
	// Dir is where proc is mounted. Empty means /proc.
	Dir string
}

// tick is the unit of CPU time in /proc/PID/stat. It has been 1/100 s on every
// Linux architecture for user space since 2.6 (USER_HZ).
const tick = 10 * time.Millisecond

// A stat is what /proc/PID/stat says that matters here.
type stat struct {
	parent int
	// cpu is user and system time, of its own and of children that it has
	// waited for, so that the tree's sum never falls.
	cpu time.Duration
}

// CPU returns the user and system time used so far.
func (t Tree) CPU() (time.Duration, error) {
	members, err := t.members()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range members {
		sum += s.cpu
	}
	return sum, nil
}

// Anon returns the anonymous memory that is resident, in bytes: RssAnon.
func (t Tree) Anon() (int64, error) {
	members, err := t.members()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range members {
		status, err := os.ReadFile(t.file(pid, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended in between
		}
		if err != nil {
			return 0, err
		}
		n, err := parseAnon(status)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

func (t Tree) file(pid int, name string) string {
	dir := t.Dir
	if dir == "" {
		dir = "/proc"
	}
	return filepath.Join(dir, strconv.Itoa(pid), name)
}

// members returns every process of the tree.
func (t Tree) members() (map[int]stat, error) {
	entries, err := os.ReadDir(filepath.Dir(filepath.Dir(t.file(t.PID, "stat"))))
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(t.file(pid, "stat"))
		if err != nil {
			continue // it ended in between
		}
		s, err := parseStat(data)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		all[pid] = s
	}
	if _, ok := all[t.PID]; !ok {
		return nil, fmt.Errorf("process %d is gone", t.PID)
	}
	members := map[int]stat{}
	for pid, s := range all {
		if t.holds(all, pid) {
			members[pid] = s
		}
	}
	return members, nil
}

// holds reports whether pid is below the root. Parents form no circle, but what
// was read of them while processes came and went might.
func (t Tree) holds(all map[int]stat, pid int) bool {
	for range len(all) {
		if pid == t.PID {
			return true
		}
		s, ok := all[pid]
		if !ok {
			return false
		}
		pid = s.parent
	}
	return false
}

var errStat = errors.New("cannot read its stat")

// parseStat reads /proc/PID/stat. The name of the program, in parentheses, may
// itself hold spaces and parentheses.
func parseStat(data []byte) (stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return stat{}, errStat
	}
	// From the third field on: state, ppid, …; utime is the 14th of all.
	fields := strings.Fields(string(data[end+1:]))
	const ppid, utime, cstime = 4 - 3, 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return stat{}, errStat
	}
	parent, err := strconv.Atoi(fields[ppid])
	if err != nil {
		return stat{}, errStat
	}
	var ticks int64
	for _, f := range fields[utime : cstime+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return stat{}, errStat
		}
		ticks += n
	}
	return stat{parent: parent, cpu: time.Duration(ticks) * tick}, nil
}

// parseAnon reads RssAnon from /proc/PID/status. A process that has ended and
// was not waited for yet has none, and holds nothing.
func parseAnon(status []byte) (int64, error) {
	for line := range strings.Lines(string(status)) {
		value, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read its status: %w", err)
		}
		return kib << 10, nil
	}
	return 0, nil
}
