package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The release build sets both variables: -ldflags "-X main.version=v1.2.3 -X
// main.commit=HASH".
var version, commit string

// programVersion returns the version from the release build, or else the module version
// or commit that the Go toolchain recorded.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := programCommit(), ""
	if buildSetting("vcs.modified") == "true" {
		dirty = "-dirty"
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

// programCommit returns the beginning of the commit that the program was built from, or
// "" if that is unknown.
func programCommit() string {
	full := commit
	if full == "" {
		full = buildSetting("vcs.revision")
	}
	return full[:min(12, len(full))]
}

// buildSetting returns a setting that the Go toolchain recorded, or "".
func buildSetting(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func newVersion(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    "Print the version of this program and the commit that it was built from, if it is\nknown. `drawbridge status` shows the version of a running gateway.",
		Example: "  drawbridge version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			from := ""
			if c := programCommit(); c != "" {
				from = "commit " + c + ", "
			}
			_, err := fmt.Fprintf(c.Out, "drawbridge %s (%s%s, %s/%s)\n", programVersion(), from, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
