{{/* What every pod of ours has: Kubernetes' restricted profile. Called with (dict "root" $ "user" 1000). */}}
{{- define "circadian.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- if not .root.Values.openshift.enabled }}
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "circadian.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "circadian.tracing" -}}
{{- with .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Folders that everything writes to, in each pod of its own: nothing else of the root can be written. */}}
{{- define "circadian.folders" -}}
- {name: HOME, value: /tmp}
- {name: TMPDIR, value: /tmp}
- {name: XDG_CACHE_HOME, value: /tmp/.cache}
- {name: HF_HOME, value: /tmp/.cache/huggingface}
- {name: HF_HUB_CACHE, value: /var/cache/circadian/models}
{{- end -}}

{{/* Of every process that is a part of the Ray cluster: the controller, its node, the head and the workers. */}}
{{- define "circadian.rayEnvironment" -}}
- {name: NODES_HAVE_ROLES, value: "1"}
- {name: RAY_AUTH_MODE, value: token}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_worker_niceness, value: "0"}
- {name: RAY_TRAIN_ENABLE_STATE_TRACKING, value: "1"}
- {name: DS_ACCELERATOR, value: {{ .Values.ray.accelerator | quote }}}
{{- range $name, $value := .Values.ray.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "circadian.rayHead" -}}
{{ include "circadian.fullname" . }}-head-svc.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Of the controller and what runs from its image with its settings. The settings themselves are in a ConfigMap. */}}
{{- define "circadian.controllerEnvironment" -}}
- {name: CIRCADIAN_HOME, value: /var/lib/circadian}
- {name: CIRCADIAN_SECRETS_FOLDER, value: /etc/circadian/secrets}
- {name: CIRCADIAN_DATABASE_MIGRATES, value: {{ ternary "false" "true" (eq (include "circadian.migrates" .) "true") | quote }}}
- {name: CIRCADIAN_HOST, value: 0.0.0.0}
- {name: CIRCADIAN_PORT, value: "8700"}
- {name: CIRCADIAN_METRICS_HOST, value: 0.0.0.0}
- {name: CIRCADIAN_METRICS_PORT, value: "8701"}
- {name: CIRCADIAN_RAY_ADDRESS, value: "{{ include "circadian.rayHead" . }}:6379"}
- {name: CIRCADIAN_RAY_DASHBOARD, value: "http://{{ include "circadian.rayHead" . }}:8265"}
- {name: RAY_ADDRESS, value: "{{ include "circadian.rayHead" . }}:6379"}
- {name: RAY_ENABLE_AUTO_CONNECT, value: "0"}
- {name: RAY_AUTH_TOKEN_PATH, value: /etc/circadian/ray/auth_token}
{{- end -}}

{{/* One folder of the service's secrets, a file each, named as the settings are. */}}
{{- define "circadian.secretsVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "circadian.databaseSecret" . }}
          items:
            - key: {{ include "circadian.databaseKey" . }}
              path: database_url
      {{- with include "circadian.appSecret" . }}
      - secret:
          name: {{ . }}
          items:
            - {key: key_pepper, path: key_pepper}
            - {key: signing_key, path: signing_key}
      - secret:
          name: {{ . }}
          optional: true
          items:
            - {key: api_key, path: api_key}
      {{- end }}
{{- end -}}

{{/* Volumes of whatever takes part in the Ray cluster. KubeRay's autoscaler looks for its logs in a volume of the name ray-logs. */}}
{{- define "circadian.rayVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .root.Values.ray.scratchSize }}
- name: ray-logs
  emptyDir:
    sizeLimit: {{ .root.Values.ray.scratchSize }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .sharedMemory }}
- name: home
  persistentVolumeClaim:
    claimName: {{ include "circadian.homeClaim" .root }}
- name: models
  persistentVolumeClaim:
    claimName: {{ include "circadian.modelClaim" .root }}
{{- end -}}

{{- define "circadian.rayMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: ray-logs, mountPath: /tmp/ray}
- {name: shared-memory, mountPath: /dev/shm}
{{- end -}}

{{/* The home in a folder of the volume: its root may hold what a file system puts there. */}}
{{- define "circadian.homeMount" -}}
- {name: home, mountPath: /var/lib/circadian, subPath: home}
{{- end -}}

{{/* Where pods go. Called with a map that has the fields. */}}
{{- define "circadian.scheduling" -}}
{{- range $field := list "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" }}
{{- with index $ $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .resourceClaims }}
resourceClaims:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
