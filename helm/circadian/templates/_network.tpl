{{/* Pieces of NetworkPolicies. Peers are found by the two labels that KubeRay leaves alone. */}}

{{- define "circadian.peer" -}}
- podSelector:
    matchLabels:
      {{- include "circadian.policySelector" . | nindent 6 }}
{{- end -}}

{{/* All that takes part in the Ray cluster: the head, the workers of every group, and the controllers with their nodes. */}}
{{- define "circadian.rayPeers" -}}
{{- $components := list "ray-head" "controller" -}}
{{- range $name, $group := .Values.ray.groups }}{{ if $group.enabled }}{{ $components = append $components (printf "ray-%s" $name) }}{{ end }}{{ end -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .Release.Name }}
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: {{ $components | sortAlpha | toJson }}
{{- end -}}

{{/* Ray's nodes talk to each other on ports that they choose; Ray's client port (10001) is for nobody, nor is the controller's own. */}}
{{- define "circadian.rayPorts" -}}
- {protocol: TCP, port: 1024, endPort: 8699}
- {protocol: TCP, port: 8702, endPort: 10000}
- {protocol: TCP, port: 10002, endPort: 65535}
{{- end -}}

{{- define "circadian.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dns.namespace }}
    {{- range .Values.networkPolicy.dns.cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}

{{- define "circadian.rayEgress" -}}
- to:
    {{- include "circadian.rayPeers" . | nindent 4 }}
  ports:
    {{- include "circadian.rayPorts" . | nindent 4 }}
{{- end -}}

{{- define "circadian.apiServerEgress" -}}
- to:
    {{- range .Values.networkPolicy.apiServer.cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}

{{- define "circadian.databaseEgress" -}}
- to:
    {{- if .Values.postgres.dev.enabled }}
    {{- include "circadian.peer" (dict "root" . "component" "postgres") | nindent 4 }}
    {{- else if .Values.networkPolicy.database }}
    {{- toYaml .Values.networkPolicy.database | nindent 4 }}
    {{- else }}
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    {{- end }}
  ports:
    - {protocol: TCP, port: {{ .Values.postgres.dev.enabled | ternary 5432 .Values.database.port }}}
{{- end -}}

{{/* From Prometheus. Called with root and ports. */}}
{{- define "circadian.scrapeIngress" -}}
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .root.Values.networkPolicy.prometheusNamespace }}
  ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}

{{/* apiVersion to podSelector of one role's policy. Called with root and component; hook is the weight of one that is there only while helm
installs or upgrades. */}}
{{- define "circadian.policyOf" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "circadian.metadata" (merge (dict "suffix" (printf "-%s" .component)) .) | nindent 2 }}
  {{- with .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: {{ . | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
spec:
  podSelector:
    matchLabels:
      {{- include "circadian.policySelector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}
