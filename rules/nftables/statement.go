package nftables

import (
	"strings"

	"github.com/google/nftables/expr"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Statement is one statement of a rule. Each kind is a type with two forms: its text in nft's language, and
// the kernel's expressions that nft makes of this text. The kinds are in verdict.go, mark.go, match.go,
// socket.go and lookup.go.
type Statement interface {
	text(f service.Family) string
	expressions(f service.Family) []expr.Any
	// requires returns the kernel options, modules and version that the statement needs.
	requires(f service.Family) string
}

// core is in every kernel that has nftables.
const core = "CONFIG_NF_TABLES (module nf_tables)"

// Requires returns the kernel options, modules and version that the statement needs.
func Requires(s Statement, f service.Family) string { return s.requires(f) }

// Uses returns the names of the set and of the chain that the statement refers to. They are empty if it
// refers to none.
func Uses(s Statement) (set, chain string) {
	for _, e := range s.expressions(service.IPv4) {
		switch e := e.(type) {
		case *expr.Lookup:
			set = e.SetName
		case *expr.Dynset:
			set = e.SetName
		case *expr.Verdict:
			chain = e.Chain
		}
	}
	return set, chain
}

// Rule is a list of statements. The kernel evaluates them one after the other until one does not match.
type Rule []Statement

// Text returns the rule in nft's language, for the table of the family.
func (r Rule) Text(f service.Family) string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.text(f)
	}
	return strings.Join(parts, " ")
}

// Expressions returns the rule as the kernel's expressions, the same as nft makes of the rule's text.
func (r Rule) Expressions(f service.Family) []expr.Any {
	var out []expr.Any
	for _, s := range r {
		out = append(out, s.expressions(f)...)
	}
	return out
}
