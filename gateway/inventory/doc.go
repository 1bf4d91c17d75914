// Package inventory lists every certificate in use, with its users and its expiry,
// and reports those that expire soon.
//
// An Inventory reads the live snapshot and the admin API's TLS. It owns only a
// short-lived copy of its list, for clients that read many pages.
package inventory
