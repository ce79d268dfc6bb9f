package config

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// setting is a row of the ledger: a field of the configuration file, a flag, or a field with its flag. If
// neither differs nor noEffect is given, the setting works as in kube-proxy.
type setting struct {
	field string // path in KubeProxyConfiguration; empty if only a flag sets it
	flag  string // empty if only the file sets it
	def   any    // default; nil for the zero value
	late  bool   // the default also replaces an empty flag
	valid rule
	// mode is the mode for which the value must be valid; empty for all. The values for mode nftables, which
	// nftproxy uses, are always valid after the load: see dropInvalid.
	mode v1alpha1.ProxyMode

	help     string // what the flag does
	differs  string // how the setting differs from kube-proxy
	noEffect string // why nftproxy ignores the setting

	own        bool                      // kube-proxy does not have the flag
	overrides  bool                      // the flag takes effect together with --config, too
	deprecated string                    // what to use instead of the flag
	value      func(*string) pflag.Value // reads the flag, where the type of the variable does not say how
	variable   func(*Options) any        // what the flag sets, if not the field
}

// group is a part of the ledger, and a section of the help.
type group struct {
	name     string
	settings []setting
}

// settings returns all rows of the ledger.
func settings() []setting {
	var all []setting
	for _, g := range ledger() {
		all = append(all, g.settings...)
	}
	return all
}

// name is what a warning calls the setting.
func (s *setting) name() string {
	if s.flag == "" {
		return s.field
	}
	return fmt.Sprintf("%s (--%s)", s.field, s.flag)
}

// remarks are the sentences that the help and the documentation share.
func (s *setting) remarks() (sentences []string) {
	if s.noEffect != "" {
		sentences = append(sentences, "No effect: "+s.noEffect+".")
	}
	if s.differs != "" {
		sentences = append(sentences, s.differs)
	}
	if s.valid.must != "" {
		sentences = append(sentences, capitalize(s.valid.must)+".")
	}
	return sentences
}

// usage is the help of the flag.
func (s *setting) usage() string {
	sentences := s.remarks()
	if s.help != "" {
		sentences = append([]string{s.help}, sentences...)
	}
	switch {
	case s.field == "" || s.noEffect != "":
	case s.overrides:
		sentences = append(sentences, "Overrides --config.")
	default:
		sentences = append(sentences, "Ignored when --config is set.")
	}
	return strings.Join(sentences, " ")
}

func capitalize(s string) string {
	return string(unicode.ToUpper(rune(s[0]))) + s[1:]
}

// fieldOf returns the field of k at a path of JSON names, as they are in the configuration file.
func fieldOf(k *v1alpha1.KubeProxyConfiguration, path string) reflect.Value {
	v := reflect.ValueOf(k).Elem()
	for name := range strings.SplitSeq(path, ".") {
		v = member(v, name)
	}
	return v
}

func member(v reflect.Value, name string) reflect.Value {
	for _, f := range reflect.VisibleFields(v.Type()) {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name {
			return v.FieldByIndex(f.Index)
		}
	}
	panic(fmt.Sprintf("%v has no field %s", v.Type(), name))
}

// plain returns the value that flags, defaults and rules work with: what a pointer points to, and the
// time.Duration of a metav1.Duration. A nil pointer gets a zero value.
func plain(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if d, ok := v.Addr().Interface().(*metav1.Duration); ok {
		return reflect.ValueOf(&d.Duration).Elem()
	}
	return v
}

// setDefault sets v to def if v has no value. A pointer to 0 has one, an empty list does not.
func setDefault(v reflect.Value, def any) {
	if v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		v = plain(v)
		v.Set(reflect.ValueOf(def).Convert(v.Type()))
	}
}
