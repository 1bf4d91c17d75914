// Bench gives Drawbridge and its peers the same work side by side, and prints
// the resources that each proxy used.
//
// Every figure is a ratio within one run. The proxies take turns, and bench
// compares each proxy's own CPU per unit of work (of all its processes, from
// /proc), because client, backend and proxy share the machine. It needs Linux
// and sends nothing beyond loopback. It checks every byte that returns: a
// connection that fails, or delivers a wrong byte, fails its row.
//
// README.md explains how to run it and how to read its output.
package main
