package kernel

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// WriteTable writes our table as it is in the kernel, in the language of nft. The elements of a set are in
// the kernel's order: they are written as they come, because a table may have a million. A rule is written as
// in the known chain of its name, if it is the same, or else as its expressions in a comment. Elements that
// nftproxy never writes become a comment as well.
func (c *Conn) WriteTable(w io.Writer, f service.Family, known []nftables.Chain) error {
	r := newReader(c, f)
	out := bufio.NewWriter(w)
	found, err := r.exists()
	if err == nil && !found {
		fmt.Fprintf(out, "# the kernel has no table %s %s\n", f, nftables.TableName)
		return out.Flush()
	}
	if err == nil {
		fmt.Fprintf(out, "table %s %s {\n", f, nftables.TableName)
		err = r.writeSets(out)
	}
	if err == nil {
		err = r.writeChains(out, known)
	}
	if err != nil {
		fmt.Fprintf(out, "\n# the rest could not be read\n")
		_ = out.Flush()
		return fmt.Errorf("read table %s %s: %w", f, nftables.TableName, err)
	}
	out.WriteString("}\n")
	return out.Flush()
}

func (r *reader) writeSets(out *bufio.Writer) error {
	sets, err := r.layouts()
	if err != nil {
		return err
	}
	for _, kind := range nftables.SetKinds() {
		s, exists := sets[kind.String()]
		delete(sets, kind.String())
		set := nftables.Set{ID: nftables.SetID{Family: r.family, Kind: kind}, Name: kind.String(),
			Counter: s.counter}
		switch {
		case !exists:
			fmt.Fprintf(out, "\t# there is no %s %s\n\n", set.Keyword(), set.Name)
			continue
		case s.layout != layoutOf(set.ID):
			fmt.Fprintf(out, "\t# %s %s has another layout: %+v\n\n", set.Keyword(), set.Name, s.layout)
			continue
		}
		fmt.Fprintf(out, "\t%s %s {\n\t\t%s\n", set.Keyword(), set.Name,
			strings.Join(set.Definition(), "\n\t\t"))
		if err := r.writeElements(out, set.ID); err != nil {
			return err
		}
		out.WriteString("\t}\n\n")
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		fmt.Fprintf(out, "\t# %s is not a set of nftproxy's: %+v\n\n", name, sets[name].layout)
	}
	return nil
}

func (r *reader) writeElements(out *bufio.Writer, id nftables.SetID) error {
	var strange []rawElement
	n := 0
	each := func(e nftables.Element, connections uint64) {
		if n++; n == 1 {
			out.WriteString("\t\telements = {\n\t\t\t")
		} else {
			out.WriteString(",\n\t\t\t")
		}
		if connections > 0 {
			fmt.Fprintf(out, "# connections: %d\n\t\t\t", connections)
		}
		out.WriteString(e.String())
	}
	var err error
	if schema := id.Schema(); schema.Interval && len(schema.Key) == 1 {
		if err = r.elements(id); err == nil { // pairs of starts and ends: few
			for _, e := range slices.SortedFunc(maps.Values(r.table.Elements), compareIDs) {
				each(e, 0)
			}
			clear(r.table.Elements)
		}
	} else {
		name := id.Kind.String()
		err = uninterrupted(r.conn.DumpElements(r.family.Number(), nftables.TableName, name,
			func(attributes []byte) error {
				raw := parseElement(attributes)
				if e, ok := r.element(id, raw); ok {
					connections, _ := raw.packets()
					each(e, connections)
				} else if len(strange) < maxStrange {
					strange = append(strange, rawElement{key: slices.Clone(raw.key), flags: raw.flags,
						data: slices.Clone(raw.data)})
				}
				return nil
			}))
	}
	if n > 0 {
		out.WriteString("\n\t\t}\n")
	}
	for _, e := range strange {
		fmt.Fprintf(out, "\t\t# not nftproxy's: key %x data %x flags %x\n", e.key, e.data, e.flags)
	}
	return err
}

// maxStrange bounds the elements of others that are written for a set.
const maxStrange = 100

func compareIDs(a, b nftables.Element) int { return a.ElementID.Compare(b.ElementID) }

func (r *reader) writeChains(out *bufio.Writer, known []nftables.Chain) error {
	found, err := r.chains()
	if err != nil {
		return err
	}
	ours := map[string]nftables.Chain{}
	for _, c := range known {
		ours[c.Name] = c
	}
	for _, name := range slices.Sorted(maps.Keys(r.table.Chains)) {
		chain := ours[name]
		normal, err := normalRules(chain)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\tchain %s {\n", name)
		hook := found.hooks[name]
		switch {
		case hook != nil && chain.Hook != nil && *hook == *chain.Hook:
			fmt.Fprintf(out, "\t\t%s\n", chain.Head())
		case hook != nil:
			fmt.Fprintf(out, "\t\t# hook %s priority %d\n", hook.Name, hook.Priority)
		}
		for _, rule := range found.rules[name] {
			if i := slices.Index(normal, rule); i >= 0 {
				fmt.Fprintf(out, "\t\t%s\n", chain.Rules[i].Text(r.family))
			} else {
				fmt.Fprintf(out, "\t\t# %s\n", strings.ReplaceAll(strings.TrimSpace(rule), "\n", "; "))
			}
		}
		out.WriteString("\t}\n\n")
	}
	return nil
}
