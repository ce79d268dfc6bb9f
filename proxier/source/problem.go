package source

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Passed is among the problems of a source when there were objects of kinds that the proxy has no use for.
// It is for information and not a failure: nothing that matters is lost.
type Passed struct {
	Kinds map[string]int // how many objects of each kind
}

// Error lists the kinds, the most frequent first.
func (p *Passed) Error() string {
	kinds := slices.SortedFunc(maps.Keys(p.Kinds), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.Kinds[b], p.Kinds[a]), cmp.Compare(a, b))
	})
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", p.Kinds[kind], kind)
	}
	return fmt.Sprintf("passed over: %s objects (not Service, EndpointSlice, Node or ServiceCIDR)", strings.Join(kinds, ", "))
}

// place is where in the manifests an object stands.
type place struct {
	file     string
	document int    // 1-based
	items    string // position in a List, as it is printed: ", item 3"
	object   string // what is known of its identity: "Service default/web"
}

// item returns the place of the i-th item, counted from 0, of the List at p.
func (p place) item(i int) place {
	return place{file: p.file, document: p.document, items: fmt.Sprintf("%s, item %d", p.items, i+1)}
}

// String prints the place as problems name it: "dir/x.yaml: document 2, item 3 (Service default/web)".
func (p place) String() string {
	text := fmt.Sprintf("%s: document %d%s", p.file, p.document, p.items)
	if p.object != "" {
		text += " (" + p.object + ")"
	}
	return text
}
