{{- define "tidings.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The services: their keys in the values, and their names, which are those of the subcommands and of Prometheus' label job. */}}
{{- define "tidings.services" -}}
gateway: gateway
fanoutWorker: fanout-worker
inboxWorker: inbox-worker
media: media
{{- end -}}

{{/* What a pod is found by. Takes root and component. */}}
{{- define "tidings.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tidings.labels" -}}
{{ include "tidings.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidings
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tidings.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidings.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* As the chart of NATS names what it makes. */}}
{{- define "tidings.nats" -}}
{{- $nats := .Values.nats -}}
{{- if $nats.fullnameOverride -}}
{{- $nats.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default "nats" $nats.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidings.claim" -}}
{{- default (printf "%s-attachments" (include "tidings.fullname" .)) .Values.attachments.volume.existingClaim -}}
{{- end -}}

{{/* The values of a service over the defaults, as JSON. Not by `mergeOverwrite`, to which 0, false and empty are nothing. Takes root and key. */}}
{{- define "tidings.of" -}}
{{- $values := deepCopy .root.Values.defaults -}}
{{- range $name, $value := get .root.Values .key -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $values $name)) -}}
{{- range $inner, $it := $value -}}
{{- $_ := set (get $values $name) $inner $it -}}
{{- end -}}
{{- else -}}
{{- $_ := set $values $name $value -}}
{{- end -}}
{{- end -}}
{{- /* A service's settings, over those of all. */ -}}
{{- $settings := deepCopy .root.Values.settings -}}
{{- range $flag, $value := $values.settings -}}
{{- $_ := set $settings $flag $value -}}
{{- end -}}
{{- $_ := set $values "settings" $settings -}}
{{- $values | toJson -}}
{{- end -}}
