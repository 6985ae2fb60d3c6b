// Envtest-smoke is what a test-suite of a Kubernetes controller does with envtest: it starts a control plane
// from the programs in a directory, installs a CRD, runs a manager with a controller, stops and starts again.
//
//	envtest-smoke DIR    with etcd, kube-apiserver and kubectl in DIR
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const patience = 60 * time.Second

var ticket = schema.GroupVersionKind{Group: "althing.test", Version: "v1", Kind: "Ticket"}

// A step sees the control plane of this start.
type step struct {
	name string
	run  func(context.Context, *rest.Config, client.WithWatch) error
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "envtest-smoke DIR   with etcd, kube-apiserver and kubectl in DIR")
		os.Exit(2)
	}
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	passed, failed := 0, 0
	for start := 1; start <= 2; start++ {
		for _, one := range once(os.Args[1]) {
			if one.err != nil {
				failed++
				fmt.Printf("start %d: %s: FAILED: %v\n", start, one.name, one.err)
				continue
			}
			passed++
			fmt.Printf("start %d: %s: ok, %.1f s\n", start, one.name, one.took.Seconds())
		}
	}
	verdict := "ok"
	if failed > 0 {
		verdict = "FAILED"
	}
	fmt.Printf("test result: %s. %d passed; %d failed\n", verdict, passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

type outcome struct {
	name string
	err  error
	took time.Duration
}

// once starts an empty control plane, takes all steps, and stops it. What the next needs is not there after
// a failure, so the first one is the last.
func once(assets string) (outcomes []outcome) {
	environment := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		CRDs:                     []*apiextensionsv1.CustomResourceDefinition{definition()},
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	begin := time.Now()
	note := func(name string, err error) bool {
		outcomes = append(outcomes, outcome{name, err, time.Since(begin)})
		begin = time.Now()
		return err == nil
	}
	config, err := environment.Start()
	defer func() { note("stop", environment.Stop()) }()
	if !note("start, with a CRD", err) {
		return outcomes
	}
	c, err := client.NewWithWatch(config, client.Options{})
	if !note("client", err) {
		return outcomes
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, one := range []step{
		{"create, update with a conflict, delete", objects},
		{"100 objects in pages", pages},
		{"watch", watched},
		{"custom resources", tickets},
		{"a manager with leader election, cache and controller", managed},
	} {
		if !note(one.name, one.run(ctx, config, c)) {
			return outcomes
		}
	}
	return outcomes
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func objects(ctx context.Context, _ *rest.Config, c client.WithWatch) error {
	one := configMap("one")
	if err := c.Create(ctx, one); err != nil {
		return err
	}
	if err := c.Create(ctx, configMap("one")); !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("created twice: %v", err)
	}
	old := one.DeepCopy()
	one.Data = map[string]string{"a": "1"}
	if err := c.Update(ctx, one); err != nil {
		return err
	}
	old.Data = map[string]string{"a": "2"}
	if err := c.Update(ctx, old); !apierrors.IsConflict(err) {
		return fmt.Errorf("an old version was accepted: %v", err)
	}
	if err := c.Delete(ctx, one); err != nil {
		return err
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(one), configMap("")); !apierrors.IsNotFound(err) {
		return fmt.Errorf("still there: %v", err)
	}
	return nil
}

func pages(ctx context.Context, _ *rest.Config, c client.WithWatch) error {
	label := client.MatchingLabels{"of": "many"}
	for at := range 100 {
		one := configMap(fmt.Sprintf("many-%03d", at))
		one.Labels = label
		if err := c.Create(ctx, one); err != nil {
			return err
		}
	}
	var names []string
	next := ""
	for first := true; first || next != ""; first = false {
		var page corev1.ConfigMapList
		if err := c.List(ctx, &page, label, client.Limit(30), client.Continue(next)); err != nil {
			return err
		}
		for _, one := range page.Items {
			names = append(names, one.Name)
		}
		next = page.Continue
	}
	if len(names) != 100 || names[0] != "many-000" || names[99] != "many-099" {
		return fmt.Errorf("%d listed: %v", len(names), names)
	}
	return c.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace("default"), label)
}

func watched(ctx context.Context, _ *rest.Config, c client.WithWatch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	label := client.MatchingLabels{"of": "watched"}
	seen, err := c.Watch(ctx, &corev1.ConfigMapList{}, client.InNamespace("default"), label)
	if err != nil {
		return err
	}
	defer seen.Stop()
	one := configMap("watched")
	one.Labels = label
	if err := c.Create(ctx, one); err != nil {
		return err
	}
	one.Data = map[string]string{"a": "1"}
	if err := c.Update(ctx, one); err != nil {
		return err
	}
	if err := c.Delete(ctx, one); err != nil {
		return err
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		event, open := <-seen.ResultChan()
		if !open || event.Type != want {
			return fmt.Errorf("%q in place of %s", event.Type, want)
		}
	}
	return nil
}

func definition() *apiextensionsv1.CustomResourceDefinition {
	keep := true
	any := &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "tickets." + ticket.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: ticket.Group,
			Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{
				Plural: "tickets", Singular: "ticket", Kind: ticket.Kind, ListKind: ticket.Kind + "List",
			},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: ticket.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: any},
			}},
		},
	}
}

func tickets(ctx context.Context, _ *rest.Config, c client.WithWatch) error {
	for at := range 20 {
		one := &unstructured.Unstructured{}
		one.SetGroupVersionKind(ticket)
		one.SetNamespace("default")
		one.SetName(fmt.Sprintf("ticket-%02d", at))
		if err := c.Create(ctx, one); err != nil {
			return err
		}
	}
	all := &unstructured.UnstructuredList{}
	all.SetGroupVersionKind(ticket)
	if err := c.List(ctx, all); err != nil {
		return err
	}
	if len(all.Items) != 20 {
		return fmt.Errorf("%d tickets of 20", len(all.Items))
	}
	return nil
}

// labels writes what it has seen into the object.
type labels struct{ client.Client }

func (l labels) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var one corev1.ConfigMap
	if err := l.Get(ctx, request.NamespacedName, &one); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if one.Labels["of"] != "managed" || one.Labels["seen"] == "yes" {
		return ctrl.Result{}, nil
	}
	before := one.DeepCopy()
	one.Labels["seen"] = "yes"
	return ctrl.Result{}, l.Patch(ctx, &one, client.MergeFrom(before))
}

func managed(ctx context.Context, config *rest.Config, c client.WithWatch) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	skip := true
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics:        server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "smoke", LeaderElectionNamespace: "default",
		LeaderElectionReleaseOnCancel: true,
	})
	if err == nil {
		// A name is used once in a process; this is the second start.
		options := controller.Options{SkipNameValidation: &skip}
		builder := ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).WithOptions(options)
		err = builder.Complete(labels{manager.GetClient()})
	}
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	for at := range 10 {
		one := configMap(fmt.Sprintf("managed-%d", at))
		one.Labels = map[string]string{"of": "managed"}
		if err := c.Create(ctx, one); err != nil {
			return err
		}
	}
	until := time.Now().Add(patience)
	for {
		var done corev1.ConfigMapList
		if err := c.List(ctx, &done, client.MatchingLabels{"of": "managed", "seen": "yes"}); err != nil {
			return err
		}
		if len(done.Items) == 10 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("the controller has seen %d of 10", len(done.Items))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
