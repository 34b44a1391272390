// Takes objects from standard input as a kube-apiserver takes them: decodes them strictly, sets defaults, and validates them with
// the server's own code. Pods of ours must also be what Pod Security calls restricted.
//
// Custom resources are left out: their schemas are another program's matter, see check.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	podsecurityapi "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
)

// Objects are rendered without the namespace that they are installed in.
const namespace = "chat"

func main() {
	restricted, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	decoder := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	wrong := 0
	complain := func(object runtime.Object, what any) {
		fmt.Printf("%s: %v\n", describe(object), what)
		wrong++
	}
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			panic(err)
		}
		if !bytes.Contains(text, []byte("\nkind:")) {
			continue
		}
		object, kind, err := decoder.Decode(text, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			continue
		} else if err != nil {
			fmt.Printf("%v: %v\n", kind, err)
			wrong++
			continue
		}
		object.(metav1.Object).SetNamespace(namespace)
		if pod := podOfOurs(object); pod != nil {
			latest := podsecurityapi.LevelVersion{Level: podsecurityapi.LevelRestricted, Version: podsecurityapi.LatestVersion()}
			for _, result := range restricted.EvaluatePod(latest, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					complain(object, result.ForbiddenReason+": "+result.ForbiddenDetail)
				}
			}
		}
		legacyscheme.Scheme.Default(object)
		internal, err := legacyscheme.Scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
		if err != nil {
			complain(object, err)
			continue
		}
		mistakes, known := validate(internal)
		if !known {
			complain(object, "nobody here knows how to validate this kind")
		}
		for _, mistake := range mistakes {
			complain(object, mistake)
		}
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

func describe(object runtime.Object) string {
	return fmt.Sprintf("%T %s", object, object.(metav1.Object).GetName())
}

// The pod of a workload, where it is ours and not that of a dependency.
func podOfOurs(object runtime.Object) *corev1.PodTemplateSpec {
	var pod *corev1.PodTemplateSpec
	switch object := object.(type) {
	case *appsv1.Deployment:
		pod = &object.Spec.Template
	case *batchv1.Job:
		pod = &object.Spec.Template
	}
	if pod == nil || pod.Labels["app.kubernetes.io/part-of"] != "tidings" {
		return nil
	}
	return pod
}

// What is wrong with an object, and whether its kind is known here.
func validate(object runtime.Object) (field.ErrorList, bool) {
	pods := corevalidation.PodValidationOptions{}
	switch object := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(object, pods), true
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(object, appsvalidation.StatefulSetValidationOptions{}, pods), true
	case *batch.Job:
		// The server makes this up before it validates.
		const uid = "batch.kubernetes.io/controller-uid"
		object.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{uid: "x"}}
		object.Spec.Template.Labels[uid] = "x"
		return batchvalidation.ValidateJobSpec(&object.Spec, nil, field.NewPath("spec"), pods), true
	case *core.Service:
		if object.Spec.ClusterIP != "" {
			object.Spec.ClusterIPs = []string{object.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(object), true
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(object), true
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(object), true
	case *core.PersistentVolumeClaim:
		return corevalidation.ValidatePersistentVolumeClaim(object, corevalidation.PersistentVolumeClaimSpecValidationOptions{}), true
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(object, policyvalidation.PodDisruptionBudgetValidationOptions{}), true
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(object, networkingvalidation.NetworkPolicyValidationOptions{}), true
	case *networking.Ingress:
		return networkingvalidation.ValidateIngressCreate(object), true
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(object, autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{}), true
	}
	return nil, false
}
