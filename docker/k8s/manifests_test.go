package k8s

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	kustomize "sigs.k8s.io/kustomize/api/types"
	strict "sigs.k8s.io/yaml"
)

// read decodes every document of the manifests as the API server would: a field that it does not know is an error.
func read(dir string) (objects []runtime.Object, err error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, batch.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	content, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var all kustomize.Kustomization
	if err := strict.UnmarshalStrict(content, &all); err != nil {
		return nil, fmt.Errorf("kustomization.yaml: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, name := range all.Resources {
		if !slices.Contains(files, filepath.Join(dir, name)) {
			return nil, fmt.Errorf("kustomization.yaml names %s, which is not there", name)
		}
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "kustomization.yaml" {
			continue
		}
		if !slices.Contains(all.Resources, name) {
			return nil, fmt.Errorf("kustomization.yaml does not name %s", name)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			object, _, err := decoder.Decode(document, nil, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// workload is what runs pods.
type workload struct {
	kind, name string
	replicas   *int32
	selector   *meta.LabelSelector
	pod        core.PodTemplateSpec
}

func workloads(objects []runtime.Object) (all []workload) {
	for _, o := range objects {
		switch o := o.(type) {
		case *apps.Deployment:
			all = append(all, workload{"Deployment", o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template})
		case *apps.StatefulSet:
			all = append(all, workload{"StatefulSet", o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template})
		case *batch.Job:
			all = append(all, workload{"Job", o.Name, nil, nil, o.Spec.Template})
		}
	}
	return all
}

// faults are all that the API server would take and that would not work.
func faults(objects []runtime.Object) (found []string) {
	fault := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	all := workloads(objects)
	ports := func(selector labels.Selector) (names []string) {
		for _, w := range all {
			if selector.Matches(labels.Set(w.pod.Labels)) {
				for _, p := range w.pod.Spec.Containers[0].Ports {
					names = append(names, p.Name)
				}
			}
		}
		return names
	}
	services := make(map[string][]string) // the ports of each
	budgets, scaled := make(map[string]bool), make(map[string]bool)
	for _, o := range objects {
		switch o := o.(type) {
		case *core.Service:
			for _, p := range o.Spec.Ports {
				services[o.Name] = append(services[o.Name], p.Name)
				if p.TargetPort.Type != intstr.String || !slices.Contains(ports(labels.SelectorFromSet(o.Spec.Selector)), p.TargetPort.StrVal) {
					fault("Service %s: no pod that it selects has the port %s", o.Name, p.TargetPort.String())
				}
			}
		case *policy.PodDisruptionBudget:
			budgets[o.Name] = true
			if selector, err := meta.LabelSelectorAsSelector(o.Spec.Selector); err != nil || len(ports(selector)) == 0 {
				fault("PodDisruptionBudget %s selects no pod", o.Name)
			}
		case *autoscaling.HorizontalPodAutoscaler:
			ref := o.Spec.ScaleTargetRef
			scaled[ref.Name] = true
			if !slices.ContainsFunc(all, func(w workload) bool { return w.kind == ref.Kind && w.name == ref.Name }) {
				fault("HorizontalPodAutoscaler %s: there is no %s %s", o.Name, ref.Kind, ref.Name)
			}
		}
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *networking.Ingress:
			for _, p := range o.Spec.Rules[0].HTTP.Paths {
				if s := p.Backend.Service; !slices.Contains(services[s.Name], s.Port.Name) {
					fault("Ingress: %s leads to %s %s, which is not there", p.Path, s.Name, s.Port.Name)
				}
			}
		case *monitoring.ServiceMonitor:
			selector, err := meta.LabelSelectorAsSelector(&o.Spec.Selector)
			if err != nil || !slices.ContainsFunc(objects, func(other runtime.Object) bool {
				s, is := other.(*core.Service)
				return is && selector.Matches(labels.Set(s.Labels)) && slices.Contains(services[s.Name], o.Spec.Endpoints[0].Port) && s.Labels[o.Spec.JobLabel] == "gochat"
			}) {
				fault("ServiceMonitor %s selects no service with its port that is the job gochat", o.Name)
			}
		case *apps.StatefulSet:
			if services[o.Spec.ServiceName] == nil {
				fault("StatefulSet %s: there is no service %s", o.Name, o.Spec.ServiceName)
			}
		}
	}
	for _, w := range all {
		c := w.pod.Spec.Containers[0]
		if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
			fault("%s: may do more than it needs", w.name)
		}
		if w.pod.Spec.EnableServiceLinks == nil || *w.pod.Spec.EnableServiceLinks {
			fault("%s: is told of services by variables that it takes for settings", w.name)
		}
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(w.pod.Spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name }) {
				fault("%s: mounts %s, which is not there", w.name, m.Name)
			}
		}
		for _, from := range c.EnvFrom {
			if !slices.ContainsFunc(objects, func(o runtime.Object) bool {
				m, is := o.(*core.ConfigMap)
				return is && m.Name == from.ConfigMapRef.Name
			}) {
				fault("%s: takes settings from %s, which is not there", w.name, from.ConfigMapRef.Name)
			}
		}
		if w.kind == "Job" {
			continue
		}
		if scaled[w.name] && w.replicas != nil {
			fault("%s: says how many there are, as its autoscaler does", w.name)
		}
		if selector, err := meta.LabelSelectorAsSelector(w.selector); err != nil || !selector.Matches(labels.Set(w.pod.Labels)) {
			fault("%s: does not select its own pods", w.name)
		}
		if fmt.Sprint(c.Args) != "[run --layers "+w.name+"]" {
			fault("%s: runs %v", w.name, c.Args)
		}
		if !budgets[w.name] {
			fault("%s: has no PodDisruptionBudget", w.name)
		}
		if !scaled[w.name] && w.name != "site" {
			fault("%s: has no HorizontalPodAutoscaler", w.name)
		}
		for probe, is := range map[string]*core.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if is == nil || is.HTTPGet == nil || !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == is.HTTPGet.Port.StrVal }) {
				fault("%s: has no %s probe at a port of its own", w.name, probe)
			}
		}
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
			fault("%s: ends before it is known that it ends", w.name)
		} else if *w.pod.Spec.TerminationGracePeriodSeconds < c.Lifecycle.PreStop.Sleep.Seconds+30 {
			fault("%s: has too little time to drain", w.name)
		}
	}
	return found
}

func TestManifests(t *testing.T) {
	objects, err := read(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults(objects) {
		t.Error(fault)
	}
	if n := len(workloads(objects)); n != 6 {
		t.Errorf("%d workloads, want five layers and the migrations", n)
	}
}

// TestSettings: every setting that a pod is given is one that the program has, and what it needs is there.
func TestSettings(t *testing.T) {
	objects, err := read(".")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "./cmd/gochat", "config", "--keys")
	cmd.Dir = "../.."
	keys, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	check := func(where, name string) {
		key := strings.TrimSuffix(name, "_FILE")
		if strings.HasPrefix(name, "GOCHAT_") && !bytes.Contains(keys, []byte(" "+key+" ")) {
			t.Errorf("%s: %s is no setting of gochat", where, name)
		}
	}
	for _, o := range objects {
		if m, is := o.(*core.ConfigMap); is {
			for name := range m.Data {
				check("ConfigMap", name)
			}
		}
	}
	for _, w := range workloads(objects) {
		for _, e := range w.pod.Spec.Containers[0].Env {
			check(w.name, e.Name)
		}
	}
}

// TestFaults: what would not work is found.
func TestFaults(t *testing.T) {
	for _, c := range []struct{ file, old, new, want string }{
		{"connect.yaml", "readinessProbe", "readynessProbe", `unknown field "spec.template.spec.containers[0].readynessProbe"`},
		{"connect.yaml", "serviceName: connect-nodes", "serviceName: nodes", "StatefulSet connect: there is no service nodes"},
		{"connect.yaml", "terminationGracePeriodSeconds: 90", "terminationGracePeriodSeconds: 30", "connect: has too little time to drain"},
		{"connect.yaml", "targetPort: websocket", "targetPort: ws", "Service connect: no pod that it selects has the port ws"},
		{"api.yaml", "path: /readyz, port: admin", "path: /readyz, port: http2", "api: has no readiness probe at a port of its own"},
		{"api.yaml", "kind: Deployment, name: api", "kind: Deployment, name: apis", "HorizontalPodAutoscaler api: there is no Deployment apis"},
		{"task.yaml", "kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "no kind \"PodDisruptionBudgets\""},
		{"network.yaml", "service: { name: site, port: { name: http }", "service: { name: site, port: { name: web }", "Ingress: / leads to site web, which is not there"},
		{"monitoring.yaml", "gochat/job: gochat", "gochat/job: chat", "ServiceMonitor gochat selects no service"},
		{"kustomization.yaml", "  - site.yaml\n", "", "kustomization.yaml does not name site.yaml"},
		{"kustomization.yaml", "resources:", "resource:", "unknown field"},
		{"kustomization.yaml", "resources:\n", "resources:\n  - more.yaml\n", "kustomization.yaml names more.yaml, which is not there"},
		{"task.yaml", "  selector:", "  replicas: 2\n  selector:", "task: says how many there are, as its autoscaler does"},
		{"logic.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "logic: is told of services by variables"},
		{"logic.yaml", "name: secrets, mountPath", "name: secret, mountPath", "logic: mounts secret, which is not there"},
		{"migrate.yaml", "configMapRef: { name: gochat }", "configMapRef: { name: chat }", "migrate: takes settings from chat, which is not there"},
		{"site.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "site: may do more than it needs"},
	} {
		t.Run(c.file+" "+c.new, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, c.file)
			content, err := os.ReadFile(file)
			if err != nil || !bytes.Contains(content, []byte(c.old)) {
				t.Fatalf("%s has no %q: %v", c.file, c.old, err)
			}
			if err := os.WriteFile(file, bytes.Replace(content, []byte(c.old), []byte(c.new), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			var found []string
			if objects, err := read(dir); err != nil {
				found = []string{err.Error()}
			} else {
				found = faults(objects)
			}
			if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("got %q, want %q", found, c.want)
			}
		})
	}
}
