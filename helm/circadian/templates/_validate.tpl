{{/* What the schema cannot say. Every message names the field and the remedy. */}}
{{- define "circadian.validate" -}}
{{- $v := .Values -}}
{{- if not (or $v.ray.skipCapabilityCheck (.Capabilities.APIVersions.Has "ray.io/v1") (.Capabilities.APIVersions.Has "ray.io/v1/RayCluster")) -}}
{{- fail "this cluster does not know ray.io/v1: install the KubeRay operator (1.7 or newer) first; to render without asking, set ray.skipCapabilityCheck=true" -}}
{{- end -}}
{{- if not (or $v.postgres.dev.enabled $v.database.existingSecret $v.database.url) -}}
{{- fail "database.existingSecret is empty: name a Secret with the database's URL, or set postgres.dev.enabled=true for a trial" -}}
{{- end -}}
{{- if and $v.postgres.dev.enabled (or $v.database.existingSecret $v.database.url) -}}
{{- fail "postgres.dev.enabled is a database of its own: leave database.existingSecret and database.url empty, or set postgres.dev.enabled=false" -}}
{{- end -}}
{{- if and $v.postgres.dev.enabled (not $v.postgres.dev.password) -}}
{{- fail "postgres.dev.password is empty: give one for the trial's database" -}}
{{- end -}}
{{- if and $v.database.url (not $v.secrets.create) -}}
{{- fail "database.url is a secret in the values: name a Secret in database.existingSecret, or set secrets.create=true to have one made of it" -}}
{{- end -}}
{{- if and $v.database.url $v.database.existingSecret -}}
{{- fail "database.url and database.existingSecret are both given: leave one of them empty" -}}
{{- end -}}
{{- if not (or $v.secrets.existingSecret $v.secrets.create $v.secrets.keepInHome) -}}
{{- fail "secrets.existingSecret is empty: name a Secret with key_pepper and signing_key, or set secrets.keepInHome=true for a trial" -}}
{{- end -}}
{{- if and $v.secrets.existingSecret $v.secrets.create -}}
{{- fail "secrets.existingSecret and secrets.create are both given: leave secrets.existingSecret empty, or set secrets.create=false" -}}
{{- end -}}
{{- $inline := $v.secrets.inline -}}
{{- if and (not $v.secrets.create) (or $inline.apiKey $inline.keyPepper $inline.signingKey) -}}
{{- fail "secrets.inline is given, but no Secret is to be made of it: set secrets.create=true, or use secrets.existingSecret" -}}
{{- end -}}
{{- if and $v.secrets.create (not $v.secrets.keepInHome) (not (and $inline.keyPepper $inline.signingKey)) -}}
{{- fail "secrets.create=true needs secrets.inline.keyPepper and secrets.inline.signingKey (openssl rand -hex 32 makes each)" -}}
{{- end -}}
{{- range $volume := list "storage" "modelCache" -}}
{{- $claim := index $v $volume -}}
{{- if and (not $v.storage.singleNode) (not $claim.existingClaim) (not (has "ReadWriteMany" $claim.accessModes)) -}}
{{- fail (printf "%s.accessModes must have ReadWriteMany, since several nodes use it; set storage.singleNode=true where everything runs on one" $volume) -}}
{{- end -}}
{{- end -}}
{{- if not $v.ray.auth.existingSecret -}}
{{- range $field, $name := include "circadian.namedSecrets" . | fromYaml -}}
{{- if eq $name (include "circadian.raySecret" $) -}}
{{- fail (printf "%s is %s, which KubeRay takes for the Secret of Ray's token, because the RayCluster has that name: give your Secret another name, or Ray's token one by ray.auth.existingSecret" $field $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $v.ray.env -}}
{{- if regexMatch "^RAY_AUTH_|(TOKEN|SECRET|KEY|PASSWORD|PASSWD|CREDENTIALS)$" $name -}}
{{- fail (printf "ray.env.%s is for no values file: give secrets by envFrom of a group, and Ray's token by ray.auth.existingSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $v.ray.groups "head" -}}
{{- fail "ray.groups.head: KubeRay's name for the head's own group; choose another, or see ray.head" -}}
{{- end -}}
{{- $roles := list -}}
{{- range $name, $group := $v.ray.groups -}}
{{- if $group.enabled -}}
{{- $roles = concat $roles $group.roles -}}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) -}}
{{- fail (printf "ray.groups.%s.minReplicas %d is more than maxReplicas %d" $name (int $group.minReplicas) (int $group.maxReplicas)) -}}
{{- end -}}
{{- if or (lt (int $group.replicas) (int $group.minReplicas)) (gt (int $group.replicas) (int $group.maxReplicas)) -}}
{{- fail (printf "ray.groups.%s.replicas %d is not between minReplicas %d and maxReplicas %d" $name (int $group.replicas) (int $group.minReplicas) (int $group.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $v.ray.accelerator "cpu") (gt (int $group.gpus) 0) -}}
{{- fail (printf "ray.groups.%s.gpus is %d, but ray.accelerator is cpu: set ray.accelerator=cuda, or gpus to 0" $name (int $group.gpus)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $role := list "wake" "rollout" "learner" -}}
{{- if not (has $role $roles) -}}
{{- fail (printf "no enabled group of ray.groups has the role %s: add it to the roles of one of them" $role) -}}
{{- end -}}
{{- end -}}
{{- if and $v.ray.gcsFaultTolerance.enabled (not $v.ray.gcsFaultTolerance.redisAddress) -}}
{{- fail "ray.gcsFaultTolerance.redisAddress is empty: give the address of your Redis, or set ray.gcsFaultTolerance.enabled=false" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is empty: give the name under which the API is reached" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway that the route belongs to" -}}
{{- end -}}
{{- if gt (int $v.controller.autoscaling.minReplicas) (int $v.controller.autoscaling.maxReplicas) -}}
{{- fail (printf "controller.autoscaling.minReplicas %d is more than maxReplicas %d" (int $v.controller.autoscaling.minReplicas) (int $v.controller.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $v.nights.ownCluster.enabled (eq (include "circadian.serviceAccount" .) "default") -}}
{{- fail "nights.ownCluster gives the controllers' account the right to make RayJobs, which are any pod with any Secret, and that account is the namespace's `default`, which other pods have too: set controller.serviceAccount.create=true, or name another one in controller.serviceAccount.name" -}}
{{- end -}}
{{- if and $v.nights.ownCluster.enabled $v.networkPolicy.enabled (not $v.networkPolicy.apiServer.cidrs) -}}
{{- fail "networkPolicy.apiServer.cidrs is empty, but the controller makes RayJobs: give the API's addresses, or set nights.ownCluster.enabled=false" -}}
{{- end -}}
{{- if and $v.ray.autoscaling.enabled (include "circadian.fixedByQueue" (dict "root" $ "labels" $v.ray.labels "annotations" $v.ray.annotations)) -}}
{{- fail "ray.labels has a queue of Kueue's, which refuses a RayCluster with an autoscaler: set ray.annotations to kueue.x-k8s.io/elastic-job=true (and Kueue's feature gate ElasticJobsViaWorkloadSlices), or ray.autoscaling.enabled=false" -}}
{{- end -}}
{{- if and $v.ray.autoscaling.enabled $v.networkPolicy.enabled (not $v.networkPolicy.apiServer.cidrs) -}}
{{- fail "networkPolicy.apiServer.cidrs is empty, but the head's autoscaler asks the Kubernetes API: give its addresses, or set ray.autoscaling.enabled=false" -}}
{{- end -}}
{{- end -}}
