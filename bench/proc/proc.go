// Package proc reads the resource usage of a process and its descendants from
// /proc.
//
// It owns no process: a Tree only refers to one.
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

// A Tree is a process and its descendants.
type Tree struct {
	// PID is the process at the root.
	PID int
	// Dir is the mount point of proc. Empty means /proc.
	Dir string
}

// tick is the unit of CPU time in /proc/PID/stat. It has been 1/100 s on every
// Linux architecture for user space since 2.6 (USER_HZ).
const tick = 10 * time.Millisecond

// A stat holds the needed fields of /proc/PID/stat.
type stat struct {
	parent int
	// cpu is the user and system time of the process and of the children that it
	// has waited for, so that the sum of the tree never decreases.
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

// Anon returns the resident anonymous memory in bytes: RssAnon.
func (t Tree) Anon() (int64, error) {
	members, err := t.members()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range members {
		status, err := os.ReadFile(t.file(pid, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the process has ended meanwhile
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
			continue // the process has ended meanwhile
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

// holds reports whether pid is below the root. Parents never form a cycle, but
// the entries may, because processes started and ended while they were read.
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

// parseStat parses /proc/PID/stat. The program's name, in parentheses, may
// itself contain spaces and parentheses.
func parseStat(data []byte) (stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return stat{}, errStat
	}
	// From the third field: state, ppid, and so on; utime is the 14th field.
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

// parseAnon reads RssAnon from /proc/PID/status. A zombie process has no such
// line and uses no memory.
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
