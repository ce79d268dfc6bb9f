package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// ReadNode reads the Node of that name, and the ServiceCIDRs if the API server serves them and lets us read
// them, once.
func (c *Client) ReadNode(ctx context.Context, name string, apply func(runtime.Object)) error {
	node, err := c.Node(ctx, name)
	if err != nil {
		return err
	}
	apply(node)
	err = c.cidrs.each(ctx, metav1.ListOptions{}, func() object { return &networkingv1.ServiceCIDR{} }, apply)
	if err != nil && !isRefusal(err) {
		return err
	}
	return nil
}

// ReadServices reads the Service of that name in a namespace once, or all Services if both are empty. Of all
// it holds one at a time.
func (c *Client) ReadServices(ctx context.Context, namespace, name string, apply func(runtime.Object)) error {
	services, options := c.services, metav1.ListOptions{}
	if name != "" {
		services.namespace = namespace
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
	return services.each(ctx, options, func() object { return &corev1.Service{} }, apply)
}

// ReadEndpoints reads the EndpointSlices of a Service once.
func (c *Client) ReadEndpoints(ctx context.Context, namespace, service string,
	apply func(runtime.Object)) error {
	slices := c.slices
	slices.namespace = namespace
	options := metav1.ListOptions{LabelSelector: labels.Set{discoveryv1.LabelServiceName: service}.String()}
	return slices.each(ctx, options, func() object { return &discoveryv1.EndpointSlice{} }, apply)
}

// each lists objects and applies each, as soon as it is received if the answer is in protobuf.
func (r resource) each(ctx context.Context, options metav1.ListOptions, new func() object,
	apply func(runtime.Object)) error {
	list, err := r.listEach(ctx, options, new, func(obj any) (any, error) {
		apply(obj.(runtime.Object))
		return &metav1.Status{}, nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", r.name, withoutURL(err))
	}
	if _, received := list.(*metav1.List); received {
		return nil
	}
	return apimeta.EachListItem(list, func(obj runtime.Object) error {
		apply(obj)
		return nil
	})
}
