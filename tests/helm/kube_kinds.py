"""The kinds that the API for tests knows, and what it says of them: discovery, and the pages of OpenAPI that clients ask for."""

from __future__ import annotations

from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""


class Kind(NamedTuple):
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    subresources: tuple[str, ...]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """How error messages name it: deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def path(self) -> str:
        """Of the API that it belongs to."""
        return f"apis/{self.api_version}" if self.group else f"api/{self.version}"


TABLE = """
v1                              namespaces               Namespace               cluster  status,finalize
v1                              nodes                    Node                    cluster  status
v1                              persistentvolumes        PersistentVolume        cluster  status
v1                              configmaps               ConfigMap               -        -
v1                              secrets                  Secret                  -        -
v1                              services                 Service                 -        status
v1                              serviceaccounts          ServiceAccount          -        -
v1                              pods                     Pod                     -        status,log
v1                              persistentvolumeclaims   PersistentVolumeClaim   -        status
v1                              events                   Event                   -        -
v1                              endpoints                Endpoints               -        -
v1                              resourcequotas           ResourceQuota           -        status
v1                              limitranges              LimitRange              -        -
apps/v1                         deployments              Deployment              -        status,scale
apps/v1                         replicasets              ReplicaSet              -        status,scale
apps/v1                         statefulsets             StatefulSet             -        status,scale
apps/v1                         daemonsets               DaemonSet               -        status
apps/v1                         controllerrevisions      ControllerRevision      -        -
batch/v1                        jobs                     Job                     -        status
batch/v1                        cronjobs                 CronJob                 -        status
autoscaling/v2                  horizontalpodautoscalers HorizontalPodAutoscaler -        status
policy/v1                       poddisruptionbudgets     PodDisruptionBudget     -        status
networking.k8s.io/v1            networkpolicies          NetworkPolicy           -        -
networking.k8s.io/v1            ingresses                Ingress                 -        status
networking.k8s.io/v1            ingressclasses           IngressClass            cluster  -
rbac.authorization.k8s.io/v1    roles                    Role                    -        -
rbac.authorization.k8s.io/v1    rolebindings             RoleBinding             -        -
rbac.authorization.k8s.io/v1    clusterroles             ClusterRole             cluster  -
rbac.authorization.k8s.io/v1    clusterrolebindings      ClusterRoleBinding      cluster  -
scheduling.k8s.io/v1            priorityclasses          PriorityClass           cluster  -
storage.k8s.io/v1               storageclasses           StorageClass            cluster  -
coordination.k8s.io/v1          leases                   Lease                   -        -
apiextensions.k8s.io/v1         customresourcedefinitions CustomResourceDefinition cluster status
ray.io/v1                       rayclusters              RayCluster              -        status
ray.io/v1                       rayjobs                  RayJob                  -        status
ray.io/v1                       rayservices              RayService              -        status
monitoring.coreos.com/v1        servicemonitors          ServiceMonitor          -        status
monitoring.coreos.com/v1        podmonitors              PodMonitor              -        status
monitoring.coreos.com/v1        prometheusrules          PrometheusRule          -        status
gateway.networking.k8s.io/v1    httproutes               HTTPRoute               -        status
external-secrets.io/v1          externalsecrets          ExternalSecret          -        status
kueue.x-k8s.io/v1beta1          localqueues              LocalQueue              -        status
"""
CUSTOM = ("ray.io", "monitoring.coreos.com", "gateway.networking.k8s.io", "external-secrets.io", "kueue.x-k8s.io")
"""Groups that somebody's operator brings."""


def _rows() -> list[Kind]:
    kinds = []
    for row in TABLE.split("\n"):
        if row:
            api_version, plural, kind, scope, below = row.split()
            group, _, version = api_version.rpartition("/")
            kinds.append(Kind(group, version, plural, kind, scope == "-", () if below == "-" else tuple(below.split(","))))
    return kinds


KINDS = _rows()
SHORT = {
    "Namespace": "ns",
    "ConfigMap": "cm",
    "Service": "svc",
    "ServiceAccount": "sa",
    "Pod": "po",
    "PersistentVolumeClaim": "pvc",
    "Event": "ev",
    "Deployment": "deploy",
    "ReplicaSet": "rs",
    "StatefulSet": "sts",
    "HorizontalPodAutoscaler": "hpa",
    "PodDisruptionBudget": "pdb",
    "NetworkPolicy": "netpol",
    "Ingress": "ing",
}
"""What people type."""


def kind_of(value: Object) -> Kind | None:
    """The one that an object says it is."""
    return next((each for each in KINDS if (each.api_version, each.kind) == (value.get("apiVersion"), value.get("kind"))), None)


def named(kind: str) -> Kind:
    (found,) = (each for each in KINDS if each.kind == kind)
    return found


def group_list(kinds: list[Kind]) -> Object:
    groups = sorted({(each.group, each.version) for each in kinds if each.group})
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [_version(group, version)], "preferredVersion": _version(group, version)}
            for group, version in groups
        ],
    }


def _version(group: str, version: str) -> Object:
    return {"groupVersion": f"{group}/{version}", "version": version}


def resource_list(kinds: list[Kind], api_version: str) -> Object | None:
    """None for an API that nothing belongs to."""
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    resources: list[Object] = []
    for each in kinds:
        if each.api_version == api_version:
            common = {"namespaced": each.namespaced, "kind": each.kind}
            short = {"shortNames": [SHORT[each.kind]]} if each.kind in SHORT else {}
            resources.append({"name": each.plural, "singularName": each.kind.lower(), "verbs": verbs, **common, **short})
            resources += [
                {"name": f"{each.plural}/{below}", "singularName": "", "verbs": ["get"], **common} for below in each.subresources
            ]
    return (
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources} if resources else None
    )


def openapi_index(kinds: list[Kind]) -> Object:
    return {"paths": {each.path: {"serverRelativeURL": f"/openapi/v3/{each.path}?hash=tests"} for each in kinds}}


def openapi(kinds: list[Kind], path: str) -> Object | None:
    """That each kind of an API takes `fieldValidation`: then clients leave the checks to the server and ask for no schema."""
    parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths: Object = {}
    for each in kinds:
        if each.path == path:
            where = f"/{path}/namespaces/{{namespace}}/{each.plural}" if each.namespaced else f"/{path}/{each.plural}"
            gvk = {"group": each.group, "version": each.version, "kind": each.kind}
            operation = {"parameters": parameters, "x-kubernetes-group-version-kind": gvk, "responses": {}}
            paths[where] = {"post": operation}
            paths[f"{where}/{{name}}"] = {"patch": operation, "put": operation}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "tests"}, "paths": paths} if paths else None
