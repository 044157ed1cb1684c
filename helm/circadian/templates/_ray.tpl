{{/* The Ray container of a head or a worker. Called with root, name, image, resources, ports, head (a boolean), env and envFrom. */}}
{{- define "circadian.rayContainer" -}}
- name: {{ .name }}
  image: {{ include "circadian.image" (dict "root" .root "image" .image) }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  ports:
    {{- range $name, $port := .ports }}
    - {name: {{ $name }}, containerPort: {{ $port }}}
    {{- end }}
  {{- with .envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    {{- include "circadian.folders" .root | nindent 4 }}
    {{- include "circadian.rayEnvironment" .root | nindent 4 }}
    {{- include "circadian.tracing" .root | nindent 4 }}
    - {name: HF_HUB_OFFLINE, value: "1"}
    # Engines run what lies in these, so each pod has its own.
    - {name: VLLM_CACHE_ROOT, value: /tmp/.cache/vllm}
    - {name: TRITON_CACHE_DIR, value: /tmp/.cache/triton}
    - {name: TORCHINDUCTOR_CACHE_DIR, value: /tmp/.cache/inductor}
    {{- if .head }}
    {{- include "circadian.dashboardEnvironment" .root | nindent 4 }}
    {{- end }}
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "circadian.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    {{- include "circadian.rayMounts" .root | nindent 4 }}
    {{- include "circadian.homeMount" .root | nindent 4 }}
    - {name: models, mountPath: /var/cache/circadian/models, readOnly: true}
{{- end -}}

{{/* Where the Ray dashboard finds its numbers and its panels. */}}
{{- define "circadian.dashboardEnvironment" -}}
{{- $d := .Values.ray.dashboard -}}
{{- with $d.prometheusUrl }}
- {name: RAY_PROMETHEUS_HOST, value: {{ . | quote }}}
- {name: RAY_PROMETHEUS_NAME, value: {{ $d.prometheusName | quote }}}
{{- end }}
- {name: RAY_GRAFANA_HOST, value: {{ default "DISABLED" $d.grafanaUrl | quote }}}
{{- with $d.grafanaIframeUrl }}
- {name: RAY_GRAFANA_IFRAME_HOST, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* Whether Kueue admits an object whole, and so refuses an autoscaler in it: a queue's label without the annotation that it may grow. Called
with root, labels and annotations, which are the object's own. */}}
{{- define "circadian.fixedByQueue" -}}
{{- $labels := merge (deepCopy .labels) .root.Values.commonLabels -}}
{{- if and (hasKey $labels "kueue.x-k8s.io/queue-name") (ne (get .annotations "kueue.x-k8s.io/elastic-job") "true") }}true{{ end -}}
{{- end -}}

{{/* A group's Kubernetes resources: its GPUs in requests and in limits. */}}
{{- define "circadian.groupResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpus) 0 -}}
{{- $gpu := dict (default "nvidia.com/gpu" .gpuResource) (int .gpus) -}}
{{- $_ := set $resources "requests" (merge $gpu $resources.requests) -}}
{{- $_ := set $resources "limits" (merge (deepCopy $gpu) $resources.limits) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* What a node of a group offers, as JSON in single quotes: the shell of `ray start`, KubeRay and Ray's autoscaler all read that form. */}}
{{- define "circadian.roleResources" -}}
{{- $offered := dict -}}
{{- range .roles -}}
{{- $_ := set $offered (printf "circadian_%s" .) 1000 -}}
{{- end -}}
'{{ toJson $offered }}'
{{- end -}}
