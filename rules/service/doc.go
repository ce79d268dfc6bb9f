// Package service is the vocabulary of the proxy: Services with their ports and endpoints, the frontends that
// clients connect to, the backends that serve them, IP families and protocols.
//
// The words have a package of their own because all others share them: proxier/state translates API objects
// into a [Service], package rules compiles it, proxier/conntrack deletes [StaleFlows]. An IP family is a
// value with methods ([Family]), so that code exists once for both families.
//
// The types are plain data. Addresses are valid and have no zone. The maker of a value does not change it any
// more once another package has it.
//
// Start reading at [Service], then [Frontend].
package service
