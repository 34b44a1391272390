{{/* Ports of the image. */}}
{{- define "tidings.ports" -}}
{{- if eq . "gateway" }}
- { name: clients, containerPort: 8080 }
{{- else if eq . "media" }}
- { name: clients, containerPort: 8081 }
{{- end }}
- { name: admin, containerPort: 9100 }
{{- end -}}

{{/* By what a process logs in to NATS: seeds, credentials, or nothing. Takes root and component. */}}
{{- define "tidings.login" -}}
{{- if ne .component "media" -}}
{{- if .root.Values.bus.credentialsSecret.name -}}
credentials
{{- else if and .root.Values.bus.seedsSecret.name (not .root.Values.bus.urlSecret.name) -}}
seeds
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where NATS and Postgres are, for every process. Media does not use NATS. Takes root and component. */}}
{{- define "tidings.connections" -}}
{{- $bus := .root.Values.bus }}
{{- if ne .component "media" }}
{{- $login := include "tidings.login" . }}
{{- if eq $login "credentials" }}
- name: TIDINGS_NATS_CREDENTIALS_FILE
  value: /etc/tidings/nats/credentials
{{- else if eq $login "seeds" }}
- name: TIDINGS_NATS_SEED_FILE
  value: /etc/tidings/nats/seed
{{- end }}
- name: TIDINGS_NATS_URL
{{- if $bus.urlSecret.name }}
  valueFrom:
    secretKeyRef: {{ pick $bus.urlSecret "name" "key" | toJson }}
{{- else if $bus.url }}
  value: {{ $bus.url | quote }}
{{- else if .root.Values.nats.enabled }}
  value: nats://{{ include "tidings.nats" .root }}:4222
{{- else }}
{{- fail "bus: url or urlSecret.name must say where NATS is, since nats.enabled is false" }}
{{- end }}
{{- if $bus.tlsByCa }}
{{- if not .root.Values.ca.secret.name }}
{{- fail "bus.tlsByCa: ca.secret.name must say which authority" }}
{{- end }}
- name: TIDINGS_NATS_CA_FILE
  value: /etc/tidings/ca/ca.crt
{{- end }}
{{- end }}
- name: TIDINGS_POSTGRES_URL
  valueFrom:
    secretKeyRef: {{ pick .root.Values.postgres.urlSecret "name" "key" | toJson }}
{{- end -}}

{{/* Files of Secrets that a process has. Takes root and component. */}}
{{- define "tidings.secretVolumes" -}}
{{- $login := include "tidings.login" . }}
{{- if $login }}
- name: nats-login
  secret:
    secretName: {{ ternary .root.Values.bus.seedsSecret.name .root.Values.bus.credentialsSecret.name (eq $login "seeds") }}
    # For the group, which is the pod's.
    defaultMode: 0440
    {{- if eq $login "seeds" }}
    items: [{ key: {{ .component }}.nk, path: seed }]
    {{- else }}
    items: [{ key: {{ .component }}, path: credentials }]
    {{- end }}
{{- end }}
{{- with .root.Values.ca.secret }}
{{- if .name }}
- name: ca
  secret:
    secretName: {{ .name }}
    items: [{ key: {{ .key }}, path: ca.crt }]
{{- end }}
{{- end }}
{{- end -}}

{{- define "tidings.secretMounts" -}}
{{- if include "tidings.login" . }}
- { name: nats-login, mountPath: /etc/tidings/nats, readOnly: true }
{{- end }}
{{- if .root.Values.ca.secret.name }}
- { name: ca, mountPath: /etc/tidings/ca, readOnly: true }
{{- end }}
{{- end -}}

{{/* Where the bytes of attachments lie, for media and inbox workers. */}}
{{- define "tidings.store" -}}
- name: TIDINGS_BLOB_STORE
  value: {{ default "file:///var/lib/tidings/attachments" .Values.attachments.url | quote }}
- name: TIDINGS_BLOB_SPOOL_DIR
  value: /var/lib/tidings/spool
{{- with .Values.attachments.endpoint }}
- name: TIDINGS_BLOB_STORE_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.attachments.region }}
- name: TIDINGS_BLOB_STORE_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.attachments.keysSecret }}
{{- if .name }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: { name: {{ .name }}, key: {{ .idKey }} }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: { name: {{ .name }}, key: {{ .secretKey }} }
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings by the names of their flags. */}}
{{- define "tidings.settings" -}}
{{- range $flag, $value := . }}
- name: TIDINGS_{{ $flag | replace "-" "_" | upper }}
  {{- /* Numbers of values are floating: 1000000 would be 1e+06. */}}
  value: {{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ $value | int64 | toString | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}

{{- define "tidings.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "tidings.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Takes root and values. */}}
{{- define "tidings.image" -}}
image: {{ printf "%s:%s" .root.Values.image.repository (coalesce .values.imageTag .root.Values.image.tag .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}
