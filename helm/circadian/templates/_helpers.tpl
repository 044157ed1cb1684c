{{/* Names, labels and images. Everything that is used twice is here, in _pods.tpl or in _ray.tpl. */}}

{{- define "circadian.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: KubeRay makes names of its own of the RayCluster's, and cuts them off at 50. */}}
{{- define "circadian.fullname" -}}
{{- $name := include "circadian.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $whole .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What stays the same for the life of an object. Called with (dict "root" $ "component" "controller"). */}}
{{- define "circadian.selector" -}}
app.kubernetes.io/name: {{ include "circadian.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* NetworkPolicies look at these two alone: KubeRay gives its pods another name. */}}
{{- define "circadian.policySelector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of an object; those of the chart win over commonLabels. "more" is a map of further ones. */}}
{{- define "circadian.labels" -}}
{{- $ours := include "circadian.selector" . | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/version" (.root.Chart.AppVersion | toString) -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "circadian" -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $ours (deepCopy (default dict .more)) (deepCopy .root.Values.commonLabels)) -}}
{{- end -}}

{{/* Of Ray's pods: nothing that a new version of the chart changes, since KubeRay makes the cluster anew when a template changes. */}}
{{- define "circadian.rayPodLabels" -}}
{{- $ours := include "circadian.selector" . | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "circadian" -}}
{{- toYaml (merge $ours (deepCopy .more)) -}}
{{- end -}}

{{/* metadata without annotations. Called with root, component and suffix ("" or "-controller"). */}}
{{- define "circadian.metadata" -}}
name: {{ include "circadian.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "circadian.labels" . | nindent 2 }}
{{- end -}}

{{/* Called with (dict "root" $ "image" "cuda"). */}}
{{- define "circadian.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- $whole := ternary (printf "%s@%s" $image.repository $image.digest) (printf "%s:%s" $image.repository $tag) (ne $image.digest "") -}}
{{- include "circadian.mirrored" (dict "root" .root "whole" $whole) -}}
{{- end -}}

{{- define "circadian.mirrored" -}}
{{- with .root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ .whole -}}
{{- end -}}

{{- define "circadian.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "circadian.serviceAccount" -}}
{{- if .Values.controller.serviceAccount.create -}}
{{- default (printf "%s-controller" (include "circadian.fullname" .)) .Values.controller.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.controller.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Secrets: the name of the one that holds the database's URL, and its key. */}}
{{- define "circadian.databaseSecret" -}}
{{- if .Values.postgres.dev.enabled -}}
{{ include "circadian.fullname" . }}-postgres
{{- else if .Values.database.existingSecret -}}
{{ .Values.database.existingSecret }}
{{- else -}}
{{ include "circadian.fullname" . }}-database
{{- end -}}
{{- end -}}

{{- define "circadian.databaseKey" -}}
{{- if and (not .Values.postgres.dev.enabled) .Values.database.existingSecret -}}
{{ .Values.database.existingSecretKey }}
{{- else -}}
database_url
{{- end -}}
{{- end -}}

{{/* The one with key_pepper, signing_key and perhaps api_key; empty where they are kept in the home folder. */}}
{{- define "circadian.appSecret" -}}
{{- if .Values.secrets.existingSecret -}}
{{ .Values.secrets.existingSecret }}
{{- else if .Values.secrets.create -}}
{{ include "circadian.fullname" . }}-secrets
{{- end -}}
{{- end -}}

{{- define "circadian.raySecret" -}}
{{- default (include "circadian.fullname" .) .Values.ray.auth.existingSecret -}}
{{- end -}}

{{/* Secrets of the operator's own that the values name, but for Ray's: a map of fields to names. */}}
{{- define "circadian.namedSecrets" -}}
{{- $v := .Values -}}
{{- $named := dict "secrets.existingSecret" $v.secrets.existingSecret "database.existingSecret" $v.database.existingSecret -}}
{{- $_ := set $named "hub.existingSecret" $v.hub.existingSecret -}}
{{- $_ := set $named "ray.gcsFaultTolerance.existingSecret" $v.ray.gcsFaultTolerance.existingSecret -}}
{{- $_ := set $named "ingress.tls.existingSecret" $v.ingress.tls.existingSecret -}}
{{- range $i, $one := $v.global.imagePullSecrets -}}
{{- $_ := set $named (printf "global.imagePullSecrets[%d].name" $i) $one.name -}}
{{- end -}}
{{- range $i, $one := $v.controller.extraEnv -}}
{{- $_ := set $named (printf "controller.extraEnv[%d].valueFrom.secretKeyRef.name" $i) (dig "valueFrom" "secretKeyRef" "name" "" $one) -}}
{{- end -}}
{{- range $group, $of := $v.ray.groups -}}
{{- range $i, $one := $of.envFrom -}}
{{- $_ := set $named (printf "ray.groups.%s.envFrom[%d].secretRef.name" $group $i) (dig "secretRef" "name" "" $one) -}}
{{- end -}}
{{- range $i, $one := $of.env -}}
{{- $_ := set $named (printf "ray.groups.%s.env[%d].valueFrom.secretKeyRef.name" $group $i) (dig "valueFrom" "secretKeyRef" "name" "" $one) -}}
{{- end -}}
{{- end -}}
{{- toYaml $named -}}
{{- end -}}

{{- define "circadian.homeClaim" -}}
{{- default (printf "%s-home" (include "circadian.fullname" .)) .Values.storage.existingClaim -}}
{{- end -}}

{{- define "circadian.modelClaim" -}}
{{- default (printf "%s-models" (include "circadian.fullname" .)) .Values.modelCache.existingClaim -}}
{{- end -}}

{{/* Whether a Job migrates; a trial's database is there only after the hooks would have run. */}}
{{- define "circadian.migrates" -}}
{{- if and .Values.migrations.enabled (not .Values.postgres.dev.enabled) }}true{{ end -}}
{{- end -}}
