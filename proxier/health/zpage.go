package health

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	componentmetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/version"
	"sigs.k8s.io/yaml"
)

// The pages /flagz and /statusz are those of k8s.io/apiserver v0.37 (pkg/server/flagz and statusz), which
// links most of an API server. The tests in internal/upstream compare them.

const (
	component = "nftproxy"
	// zpageWarning follows the title of the text of a page.
	zpageWarning = "Warning: This endpoint is not meant to be machine parseable, has no formatting " +
		"compatibility guarantees and is for debugging purposes only.\n"

	mediaJSON = "application/json"
	mediaYAML = "application/yaml"
	mediaText = "text/plain"

	zpageGroup = "config.k8s.io"
	deprecated = "v1alpha1"
)

// zpage is a page about the process: text for people, or an object for programs. A client gets the object if
// its Accept header names the kind, as in application/json;g=config.k8s.io;v=v1beta1;as=Statusz.
type zpage struct {
	name, kind string
	text       func() string
	object     func(metav1.TypeMeta, metav1.ObjectMeta) any
}

func (p *zpage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	form, found := p.negotiate(r.Header.Get("Accept"))
	switch {
	case !found:
		p.refuse(w)
	case form.media == mediaText:
		w.Header().Set("Content-Type", plainText)
		fmt.Fprintf(w, "\n%s %s\n%s%s", component, p.name, zpageWarning, p.text())
	default:
		p.writeObject(w, form, form.pretty || prefersPretty(r))
	}
}

// zpageForm is what a client accepts.
type zpageForm struct {
	media  string
	target schema.GroupVersionKind // zero for text
	pretty bool
}

// negotiate returns the first form of the page that an Accept header allows, and whether there is one.
func (p *zpage) negotiate(accept string) (zpageForm, bool) {
	if strings.TrimSpace(accept) == "" {
		return zpageForm{media: mediaText}, true
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		for _, media := range []string{mediaJSON, mediaYAML, mediaText} {
			kind, subtype, _ := strings.Cut(media, "/")
			if clause.Type != "*" && clause.Type != kind || clause.SubType != "*" && clause.SubType != subtype ||
				clause.Type == "*" && clause.SubType != "*" {
				continue
			}
			if form, ok := p.form(media, clause.Params); ok {
				return form, true
			}
		}
	}
	return zpageForm{}, false
}

// form returns the form that the parameters of a media type select, and whether the page has it.
func (p *zpage) form(media string, params map[string]string) (zpageForm, bool) {
	if params["stream"] != "" || params["sv"] != "" {
		return zpageForm{}, false
	}
	form := zpageForm{media: media, pretty: params["pretty"] == "1"}
	form.target = schema.GroupVersionKind{Group: params["g"], Version: params["v"], Kind: params["as"]}
	if media == mediaText {
		return form, form.target.Empty()
	}
	known := form.target.Version == "v1beta1" || form.target.Version == deprecated
	return form, known && form.target.Group == zpageGroup && form.target.Kind == p.kind
}

func (p *zpage) writeObject(w http.ResponseWriter, form zpageForm, pretty bool) {
	if form.target.Version == deprecated {
		w.Header().Set("Warning", fmt.Sprintf(`299 - "This version of the %s endpoint is deprecated. `+
			`Please use a newer version."`, p.name))
	}
	object := p.object(
		metav1.TypeMeta{Kind: p.kind, APIVersion: form.target.GroupVersion().String()},
		metav1.ObjectMeta{Name: component})
	var body []byte
	var err error
	switch {
	case form.media == mediaYAML:
		body, err = yaml.Marshal(object)
	case pretty:
		body, err = json.MarshalIndent(object, "", "  ")
	default:
		body, err = json.Marshal(object)
		body = append(body, '\n')
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", fmt.Sprintf("%s;g=%s;v=%s;as=%s",
		form.media, form.target.Group, form.target.Version, form.target.Kind))
	_, _ = w.Write(body) // an error means that the client has closed the connection
}

// refuse answers a client that accepts no form of the page.
func (p *zpage) refuse(w http.ResponseWriter) {
	body, err := json.MarshalIndent(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Message: "only the following media types are accepted: " +
			strings.Join([]string{mediaJSON, mediaYAML, mediaText}, ", "),
		Reason: metav1.StatusReasonNotAcceptable,
		Code:   http.StatusNotAcceptable,
	}, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusNotAcceptable)
	_, _ = w.Write(body)
}

// prefersPretty reports whether a person reads the answer.
func prefersPretty(r *http.Request) bool {
	if value := r.URL.Query().Get("pretty"); value != "" {
		pretty, _ := strconv.ParseBool(value) // anything else is false
		return pretty
	}
	return slices.ContainsFunc([]string{"curl", "Wget", "Mozilla/5.0"}, func(client string) bool {
		return strings.HasPrefix(r.UserAgent(), client)
	})
}

// flagz returns the page of the command-line flags.
func flagz(flags map[string]string) http.Handler {
	type object struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata,omitempty"`
		Flags             map[string]string `json:"flags,omitempty"`
	}
	return &zpage{
		name: "flagz", kind: "Flagz",
		text: func() string {
			var b strings.Builder
			for _, name := range slices.Sorted(maps.Keys(flags)) {
				fmt.Fprintf(&b, "%s=%s\n", name, flags[name])
			}
			return b.String()
		},
		object: func(t metav1.TypeMeta, m metav1.ObjectMeta) any { return object{t, m, flags} },
	}
}

// statusObject is the object of /statusz.
type statusObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	StartTime         metav1.Time `json:"startTime"`
	UptimeSeconds     int64       `json:"uptimeSeconds"`
	GoVersion         string      `json:"goVersion"`
	BinaryVersion     string      `json:"binaryVersion"`
	EmulationVersion  string      `json:"emulationVersion,omitempty"`
	Paths             []string    `json:"paths"`
}

// statusz returns the page of versions, start time and paths. The emulated version is the Kubernetes whose
// kube-proxy nftproxy replaces.
func statusz(binary string, paths []string) http.Handler {
	object := func(t metav1.TypeMeta, m metav1.ObjectMeta) statusObject {
		start := processStart()
		return statusObject{
			TypeMeta: t, ObjectMeta: m,
			StartTime:        metav1.NewTime(start),
			UptimeSeconds:    max(0, int64(time.Since(start).Seconds())),
			GoVersion:        runtime.Version(),
			BinaryVersion:    binary,
			EmulationVersion: version.DefaultKubeBinaryVersion,
			Paths:            paths,
		}
	}
	return &zpage{
		name: "statusz", kind: "Statusz",
		text: func() string {
			o := object(metav1.TypeMeta{}, metav1.ObjectMeta{})
			return fmt.Sprintf("\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\n"+
				"Binary version: %s\nEmulation version: %s\nPaths: %s\n",
				o.StartTime.Format(time.UnixDate),
				o.UptimeSeconds/3600, o.UptimeSeconds/60%60, o.UptimeSeconds%60,
				o.GoVersion, o.BinaryVersion, o.EmulationVersion, strings.Join(o.Paths, " "))
		},
		object: func(t metav1.TypeMeta, m metav1.ObjectMeta) any { return object(t, m) },
	}
}

// processStart returns when the process started, in whole seconds. Without /proc, that is 1970.
func processStart() time.Time {
	seconds, _ := componentmetrics.GetProcessStart()
	return time.Unix(int64(seconds), 0)
}
