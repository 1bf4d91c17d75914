// Bench gives Drawbridge and its peers the same work side by side, and prints
// what each proxy used for it.
//
// Every figure is a ratio of one run: the proxies take turns, and what is
// compared is a proxy's own CPU per unit of work (of all its processes, from
// /proc), because client, backend and proxy share the machine. It needs Linux,
// sends nothing beyond loopback, and every byte that comes back is checked: a
// connection that fails, or brings a wrong byte, fails its row.
//
// README.md says how to run it and how to read what it prints.
package main
