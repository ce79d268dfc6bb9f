package rules

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
)

// WriteText writes the ruleset as an nft script that replaces the tables in one transaction.
func (r *Ruleset) WriteText(w io.Writer) error {
	var b strings.Builder
	elements := slices.SortedFunc(r.elements(), compareElements)
	for _, f := range r.config.Families {
		table := fmt.Sprintf("table %s %s", f, nftables.TableName)
		fmt.Fprintf(&b, "add %s\ndelete %s\n%s {\n", table, table, table)
		for _, s := range r.sets(f) {
			elements = writeSet(&b, s, elements)
		}
		for _, c := range r.Chains(f) {
			writeChain(&b, c)
		}
		b.WriteString("}\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeSet writes the set with its elements, which are the first of elements, and returns the rest.
func writeSet(b *strings.Builder, s nftables.Set, elements []nftables.Element) []nftables.Element {
	fmt.Fprintf(b, "\t%s %s {\n", s.Keyword(), s.Name)
	for _, line := range s.Definition() {
		fmt.Fprintf(b, "\t\t%s\n", line)
	}
	n := 0
	for n < len(elements) && elements[n].Set == s.ID {
		sep := ",\n\t\t\t"
		if n == 0 {
			sep = "\t\telements = {\n\t\t\t"
		}
		b.WriteString(sep + elements[n].String())
		n++
	}
	if n > 0 {
		b.WriteString("\n\t\t}\n")
	}
	b.WriteString("\t}\n\n")
	return elements[n:]
}

func writeChain(b *strings.Builder, c nftables.Chain) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if head := c.Head(); head != "" {
		fmt.Fprintf(b, "\t\t%s\n", head)
	}
	for _, rule := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", rule.Text(c.Family))
	}
	b.WriteString("\t}\n\n")
}

// WriteText writes the Delta as nft commands, one per line. A comment separates the commands of the
// transaction from those that follow it in a transaction of their own.
func (d *Delta) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, broken := range d.Reset {
		fmt.Fprintf(&b, "delete table %s %s\n", broken.Family, nftables.TableName)
	}
	for _, f := range d.Tables {
		fmt.Fprintf(&b, "add table %s %s\n", f, nftables.TableName)
	}
	for _, f := range d.Replaced() {
		fmt.Fprintf(&b, "flush table %s %s\n", f, nftables.TableName) // of rules only
	}
	for _, s := range d.Replace {
		fmt.Fprintf(&b, "delete %s %s %s %s\n", s.Keyword(), s.ID.Family, nftables.TableName, s.Name)
	}
	for _, s := range slices.Concat(d.Replace, d.Sets) {
		fmt.Fprintf(&b, "add %s %s %s %s { %s; }\n",
			s.Keyword(), s.ID.Family, nftables.TableName, s.Name, strings.Join(s.Definition(), "; "))
	}
	for _, c := range d.Chains {
		head := c.Head()
		if head != "" {
			head = " { " + head + " }"
		}
		fmt.Fprintf(&b, "add chain %s %s %s%s\n", c.Family, nftables.TableName, c.Name, head)
		fmt.Fprintf(&b, "flush chain %s %s %s\n", c.Family, nftables.TableName, c.Name)
	}
	for _, c := range d.Chains {
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "add rule %s %s %s %s\n",
				c.Family, nftables.TableName, c.Name, rule.Text(c.Family))
		}
	}
	writeElements(&b, "delete", d.Delete)
	writeElements(&b, "add", d.Add)
	d.writeAfter(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func writeElements(b *strings.Builder, verb string, elements []nftables.Element) {
	for _, e := range elements {
		fmt.Fprintf(b, "%s element %s %s %s { %s }\n", verb, e.Set.Family, nftables.TableName, e.Set.Kind, e)
	}
}

func (d *Delta) writeAfter(b *strings.Builder) {
	if len(d.StaleChains)+len(d.StaleSets) > 0 {
		b.WriteString("# after the commit:\n")
	}
	for _, verb := range []string{"flush", "delete"} { // stale chains may jump to each other
		for _, c := range d.StaleChains {
			fmt.Fprintf(b, "%s chain %s %s %s\n", verb, c.Family, nftables.TableName, c.Name)
		}
	}
	for _, s := range d.StaleSets {
		fmt.Fprintf(b, "delete set %s %s %s\n", s.ID.Family, nftables.TableName, s.Name)
	}
}
