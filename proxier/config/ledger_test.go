package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // the flags --log-json-*, as in cmd/nftproxy
	"k8s.io/kube-proxy/config/v1alpha1"
)

// TestLedger checks that every field and every flag has a row, and that every row has a field or flag that
// exists.
func TestLedger(t *testing.T) {
	fs := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
	NewOptions().AddFlags(fs)
	var wantFlags, gotFlags, gotFields []string
	fs.VisitAll(func(f *pflag.Flag) { wantFlags = append(wantFlags, f.Name) })
	for _, s := range settings() {
		if s.flag != "" {
			gotFlags = append(gotFlags, s.flag)
		}
		if s.field != "" && s.deprecated == "" { // a deprecated flag is a second one for its field
			gotFields = append(gotFields, s.field)
		}
		if s.flag == "" && (s.field == "" || s.help != "") {
			t.Errorf("%+v: neither field nor flag, or help without a flag", s)
		}
		if s.differs != "" && s.noEffect != "" {
			t.Errorf("%s both differs and has no effect", s.name())
		}
	}
	wantFields := fields(reflect.TypeFor[v1alpha1.KubeProxyConfiguration](), "")
	compare := func(what string, exist, rows []string) {
		slices.Sort(exist)
		slices.Sort(rows)
		if diff := cmp.Diff(exist, rows); diff != "" {
			t.Errorf("%s without a row, or rows without one (-exists +row):\n%s", what, diff)
		}
	}
	compare("fields", wantFields, gotFields)
	compare("flags", wantFlags, gotFlags)
}

// fields returns the paths of the fields of a struct of the configuration file, without apiVersion and kind.
func fields(s reflect.Type, prefix string) (paths []string) {
	for _, f := range reflect.VisibleFields(s) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "", name == "kind", name == "apiVersion":
		case f.Type.Kind() == reflect.Struct && !isScalar(f.Type):
			paths = append(paths, fields(f.Type, prefix+name+".")...)
		default:
			paths = append(paths, prefix+name)
		}
	}
	return paths
}

// isScalar reports whether the file has a single value for a struct.
func isScalar(s reflect.Type) bool {
	return s == reflect.TypeFor[metav1.Duration]() || s == reflect.TypeFor[logsapi.TimeOrMetaDuration]() ||
		s == reflect.TypeFor[resource.QuantityValue]()
}

const (
	page      = "../../docs/configuration.md"
	pageBegin = "<!-- This table is generated: make docs -->\n"
	pageEnd   = "<!-- End of the generated table -->\n"
)

var update = flag.Bool("update", false, "rewrite golden files and the table of the documentation")

// TestReference checks that the documentation has the ledger, and with -update writes it.
func TestReference(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), pageBegin)
	got, after, foundEnd := strings.Cut(rest, pageEnd)
	if !found || !foundEnd {
		t.Fatalf("%s has no place for the table: %s... %s", page, pageBegin, pageEnd)
	}
	want := table(t)
	if *update {
		if err := os.WriteFile(page, []byte(before+pageBegin+want+pageEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		got = want
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is out of date, run make docs (-want +got):\n%s", page, diff)
	}
}

// table returns the ledger in Markdown.
func table(t *testing.T) string {
	o := NewOptions()
	c, _ := mustComplete(t, "")
	var b strings.Builder
	for _, g := range ledger() {
		fmt.Fprintf(&b, "\n### %s settings\n\n", capitalize(g.name))
		b.WriteString("| setting | flag | default | in nftproxy |\n|---|---|---|---|\n")
		for _, s := range g.settings {
			var value reflect.Value
			if s.variable == nil {
				value = plain(fieldOf(&c.Kube, s.field))
			} else {
				value = reflect.ValueOf(s.variable(o)).Elem()
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n",
				code("", s.field), code("--", s.flag), code("", defaultText(value)), s.cell())
		}
	}
	return b.String() + "\n"
}

// cell returns the column "in nftproxy".
func (s *setting) cell() string {
	status := "Used."
	switch {
	case s.noEffect != "":
		status = "" // remarks begin with it
	case s.own:
		status = "Only in nftproxy."
	case s.differs != "":
		status = "Differs."
	}
	sentences := append([]string{status, s.help}, s.remarks()...)
	if s.overrides {
		sentences = append(sentences, "The flag overrides the file.")
	}
	if s.deprecated != "" {
		sentences = append(sentences, "Deprecated: "+s.deprecated+".")
	}
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), " ")
}

// defaultText is empty for false, 0 and empty values.
func defaultText(v reflect.Value) string {
	text := fmt.Sprint(v)
	switch value := v.Addr().Interface().(type) {
	case *logsapi.TimeOrMetaDuration:
		text = value.Duration.Duration.String()
	case *resource.QuantityValue:
		text = value.String()
	case *[]string:
		text = strings.Join(*value, ",")
	}
	if v.IsZero() || text == "map[]" || text == "0" {
		return ""
	}
	return text
}

func code(prefix, text string) string {
	if text == "" {
		return ""
	}
	return "`" + prefix + text + "`"
}
