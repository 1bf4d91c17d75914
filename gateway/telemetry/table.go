package telemetry

import "strings"

// A Metric describes one metric, for the help text in /metrics and for
// docs/reference/metrics.md.
type Metric struct {
	Name   string // without the prefix drawbridge_
	Type   string // counter, gauge, histogram or summary
	Labels string // labels besides those of the group, in Markdown
	Help   string // in Markdown; links are relative to docs
}

// A Group holds the metrics of one kind of object.
type Group struct {
	Title, Intro string // in Markdown
	Metrics      []Metric
	Note         string // shown after the table
}

// prefix begins the name of every metric.
const prefix = "drawbridge_"

// Table describes every metric of the gateway, except those of the Go runtime and
// the process.
var Table = []Group{
	{
		Title: "Listeners",
		Intro: "The label `listener` is the listener's name. Counters continue when the listener changes or moves; a " +
			"draining listener still counts.",
		Metrics: []Metric{
			{"bridge_conn_open", "gauge", "", "Open connections."},
			{"bridge_conn_accepted", "counter", "", "Connections admitted; rejected ones are not included."},
			{"bridge_conn_rejected", "counter", "", "Connections closed on accept because of one of `limits`, including rates."},
			{"bridge_conn_denied", "counter", "", "Connections closed because `access` excludes the client. Behind a PROXY protocol header they count as accepted. Requests that a [trusted proxy](client-identity.md#proxies-in-front-of-the-gateway) sends for such a client are in `drawbridge_bridge_http_requests`, with code 403."},
			{"bridge_conn_unrouted", "counter", "", "TCP: connections closed because no route matched and the listener has no `upstream`."},
			{"bridge_conn_undialed", "counter", "", "TCP: connections closed because no endpoint could be connected."},
			{"bridge_bytes", "counter", "`direction`: `to_upstream`, `to_client`", "TCP: bytes carried, without TLS. HTTP: bytes on the clients' connections, with TLS; `to_upstream` counts the bytes that clients sent."},
			{"bridge_conn_unannounced", "counter", "`reason`: `UNTRUSTED`, `MISSING`, `MALFORMED`, `TIMEOUT`, `CLOSED`", "Connections closed because they had no valid [PROXY protocol header](connections.md#the-proxy-protocol). They count as accepted."},
			{"bridge_limited", "counter", "`limit`: `requests`, `requests_per_client`, `rate`, `rate_per_client`", "Requests (on TCP listeners, connections) over a [limit](limits-and-retries.md#limits-on-clients) of that name: answered with 503 or 429, or closed."},
			{"bridge_handshakes", "counter", "`result`: `full`, `resumed`", "Successful TLS handshakes with clients."},
			{"bridge_revalidated", "counter", "`result`: `ended`, `reported`; `reason`", "Open connections whose client [no longer verifies](revalidation.md)."},
			{"bridge_handshake_failures", "counter", "`reason`", "Failed TLS handshakes with clients."},
			{"bridge_http_in_flight", "gauge", "", "HTTP: requests in progress, including upgraded connections."},
			{"bridge_http_requests", "counter", "`code`", "HTTP: requests by the status of their response. 499: the client disconnected before the response."},
			{"bridge_http_seconds", "counter", "", "HTTP: total seconds spent on requests; upgraded connections count until their end."},
			{"bridge_http_duration_seconds", "histogram", "`code`: `2xx` and so on", "HTTP: seconds from the request header until the response was sent. `1xx` are upgraded requests, until their end; `4xx` includes requests whose client disconnected."},
			{"bridge_conn_duration_seconds", "histogram", "", "TCP: duration of ended connections, in seconds."},
			{"bridge_conn_first_byte_seconds", "histogram", "", "TCP: seconds from the start of a connection until the upstream's first byte was forwarded."},
		},
	},
	{
		Title: "Upstreams",
		Intro: "The label `upstream` is the upstream's name, and `endpoint` the address, as `host:port` or a path. " +
			"Counters continue when the upstream, its certificate or its trust changes, but lose two things: " +
			"counts since the last publication, and the traffic of connections that were made before the " +
			"change. (The counts of `drawbridge status` start again.) Probes do not count.",
		Metrics: []Metric{
			{"upstream_up", "gauge", "", "Health, 1 or 0: the result of the health check or, without one, of the last attempt to connect. Absent before the first result. With `FROM_HOST` a name mismatch does not change it."},
			{"upstream_available", "gauge", "", "1 while the endpoint [takes traffic](balancing.md#health). 0 while it drains, fails its health check, waits for its first check, or is ejected."},
			{"upstream_checks", "counter", "`result`: `ok`, `failed`", "Results of health checks. Absent without `health_check`."},
			{"upstream_ejections", "counter", "", "Ejections by `outlier_detection`."},
			{"upstream_unverified", "gauge", "without `endpoint`", "1 while any certificate of the upstream is accepted (`VERIFICATION_REPORT_ONLY`, `VERIFICATION_INSECURE_SKIP`), else 0."},
			{"upstream_conn_open", "gauge", "", "Open connections, including those in a handshake, idle and warm ones."},
			{"upstream_conn_made", "counter", "", "Connections made, TLS included."},
			{"upstream_in_flight", "gauge", "", "Requests in progress at the endpoint; a connection of a TCP listener counts as one."},
			{"upstream_pending", "gauge", "without `endpoint`", "Requests that wait until [a limit](limits-and-retries.md#limits-of-an-upstream) admits them."},
			{"upstream_overloaded", "counter", "without `endpoint`", "Requests that a limit rejected."},
			{"upstream_requests", "counter", "", "HTTP requests sent."},
			{"upstream_retries", "counter", "without `endpoint`; `result`: `made`, `refused`", "[Retries](limits-and-retries.md#retries) of HTTP requests, and retries that the budget refused."},
			{"upstream_dials", "counter", "`phase`: `tcp`, `tls`", "Attempts to connect, including failed ones. A connection to a unix socket counts as `tcp`."},
			{"upstream_dial_seconds", "counter", "`phase`: `tcp`, `tls`", "Total seconds spent on attempts to connect."},
			{"upstream_dial_duration_seconds", "histogram", "`phase`: `tcp`, `tls`; without `endpoint`", "Seconds spent on each attempt to connect."},
			{"upstream_response_head_seconds", "histogram", "without `endpoint`", "Seconds from the moment a request had a connection until its response header arrived."},
			{"upstream_handshakes", "counter", "`result`: `full`, `resumed`", "Successful TLS handshakes."},
			{"upstream_full_handshakes", "counter", "`reason`: `NO_TICKET`, `EXPIRED`, `USED_UP`, `CREDENTIALS_CHANGED`, `REFUSED`, `REUSE_OFF`, `FLUSHED`", "Full TLS handshakes, by [the reason why no session was resumed](connections.md#tls-sessions)."},
			{"upstream_revalidated", "counter", "without `endpoint`; `result`: `ended`, `reported`; `reason`", "Open connections whose endpoint [no longer verifies](revalidation.md)."},
			{"upstream_reported", "counter", "`reason`", "Certificates that verification would have refused under `VERIFICATION_REPORT_ONLY`."},
			{"upstream_failures", "counter", "`reason`", "Connections that could not be made, were refused after the handshake or failed in use; responses that were missing, incomplete or late."},
			{"upstream_dns_endpoints", "gauge", "without `endpoint`", "Endpoints that [DNS](balancing.md#endpoints-by-dns) returned. Absent without `dns`."},
			{"upstream_dns_lookups", "counter", "without `endpoint`; `result`: `ok`, `failed`", "DNS lookups."},
			{"upstream_dns_age_seconds", "gauge", "without `endpoint`", "Seconds since the last complete DNS answer. Absent before it."},
			{"upstream_warm_ready", "gauge", "", "[Warm connections](connections.md#warm-connections) that are ready. Absent without `pool.warm`."},
			{"upstream_warm_used", "counter", "", "Warm connections that a client has used."},
			{"upstream_warm_missed", "counter", "", "Clients that had to wait because no warm connection was ready."},
			{"upstream_warm_expired", "counter", "", "Warm connections closed unused because of their age, or to make room under a limit."},
			{"upstream_warm_closed", "counter", "", "Warm connections that the server closed, or sent data on, before any client used them."},
		},
		Note: "`reason` is one of the [reasons](verification.md#reasons).",
	},
	{
		Title: "The gateway",
		Metrics: []Metric{
			{"certs_expires_in_seconds", "gauge", "`use`: `own`, `trust`, `upstream`, `crl`; `name` of the certificate, trust bundle or upstream; `endpoint` of an upstream, else empty", "Seconds until expiry; negative after it. For a trust bundle, the CA or revocation list that expires first counts. Only resources that are up; for upstreams, the certificates that their endpoints last presented."},
			{"gateway_revision", "gauge", "", "The live revision."},
			{"gateway_applies", "counter", "`result`: `applied`, `unchanged`, `dry_run`, `refused`", "Writes from any source: the admin service, `--config`, SIGHUP, changed files."},
			{"gateway_problems", "gauge", "", "Resources that are down; `drawbridge status` says why."},
			{"gateway_warnings", "gauge", "", "Live settings that weaken security; `drawbridge status` names them."},
			{"gateway_descriptors", "gauge", "`use`: `limit`, `clients`, `upstreams`", "File descriptors: the process's limit (0: unknown), and those used by clients' connections and by connections to upstreams."},
			{"gateway_listeners_paused", "gauge", "", "Listeners that have stopped accepting because traffic has used [all its descriptors](deployment.md#file-descriptors)."},
			{"gateway_pauses", "counter", "", "How often a listener paused."},
			{"gateway_resources", "gauge", "`kind`: `listener`, `route`, `upstream`, `certificate`, `trust_bundle`", "Resources of the live revision."},
			{"gateway_uptime_seconds", "gauge", "", "Seconds since the start."},
			{"gateway_log_dropped", "counter", "", "Lines of the gateway's own log dropped because the reader of standard error was too slow; up to 1 MiB waits."},
			{"access_log_records", "counter", "`result`: `written`, `dropped`", "[Access log](access-log.md) records. Dropped records found no room because they arrived faster than they could be written."},
			{"access_log_failed_writes", "counter", "", "Failed writes to the access log; each is retried."},
			{"admin_requests", "counter", "`method`: full name; `code`: of gRPC", "Calls of the admin API. An unknown method is `unknown`."},
			{"admin_duration", "summary", "`method`", "Milliseconds per call, with the quantiles 0.5, 0.9 and 0.99. For `WatchConfig`, how long the stream lasted."},
		},
	},
	{
		Title: "The fleet",
		Intro: "Only for a gateway that [shares its configuration](fleet.md) with others.",
		Metrics: []Metric{
			{"fleet_connected", "gauge", "", "1 while etcd answers, else 0."},
			{"fleet_contact_age_seconds", "gauge", "", "Seconds since etcd answered last; before its first answer, since the start."},
			{"fleet_diverged", "gauge", "", "1 if the history in etcd differs from the gateway's, so that the gateway does not follow it, else 0."},
			{"fleet_duplicate_id", "gauge", "", "1 while another gateway uses the ID of this one, which therefore does not report to the fleet, else 0."},
			{"fleet_head_revision", "gauge", "", "The latest revision in etcd, as last read. Absent before the first answer."},
			{"fleet_lag_revisions", "gauge", "", "How many revisions the gateway is behind `drawbridge_fleet_head_revision`. Absent before the first answer."},
			{"fleet_copy_revision", "gauge", "", "The revision of the last good copy in the data directory."},
		},
		Note: "In addition there are the `go_` and `process_` metrics of Prometheus' Go client.",
	},
}

// help returns the plain text of each metric's help, by its full name.
func help() map[string]string {
	all := map[string]string{}
	for _, g := range Table {
		for _, m := range g.Metrics {
			all[prefix+m.Name] = plain(m.Help)
		}
	}
	return all
}

// plain returns a text without Markdown's links and code marks.
func plain(markdown string) string {
	var out strings.Builder
	for {
		before, link, found := strings.Cut(markdown, "[")
		out.WriteString(before)
		if !found {
			return strings.ReplaceAll(out.String(), "`", "")
		}
		text, rest, _ := strings.Cut(link, "](")
		_, markdown, _ = strings.Cut(rest, ")")
		out.WriteString(text)
	}
}
