{{/* The pod of `tidings setup`. */}}
{{- define "tidings.setupPod" -}}
{{- $copies := .Values.setup.replicas | int }}
{{- if and (eq $copies 0) .Values.nats.enabled }}
{{- $copies = .Values.nats.config.cluster.enabled | ternary 3 1 }}
{{- end }}
{{- $args := list "setup" }}
{{- if gt $copies 0 }}
{{- $args = concat $args (list "--replicas" ($copies | toString)) }}
{{- end }}
metadata:
  labels: {{- include "tidings.labels" (dict "root" . "component" "setup") | nindent 4 }}
spec:
  # A hook before the installation comes before the release's own account; it asks Kubernetes nothing.
  serviceAccountName: default
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: OnFailure
  securityContext: {{- include "tidings.podSecurity" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.defaults.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.defaults.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: setup
      {{- include "tidings.image" (dict "root" . "values" .Values.defaults) | nindent 6 }}
      args: {{ $args | toJson }}
      env: {{- include "tidings.connections" (dict "root" . "component" "setup") | nindent 8 }}
        {{- with .Values.defaults.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources: {{- toYaml .Values.setup.resources | nindent 8 }}
      securityContext: {{- include "tidings.containerSecurity" . | nindent 8 }}
      {{- $secretMounts := include "tidings.secretMounts" (dict "root" . "component" "setup") }}
      {{- if or $secretMounts .Values.defaults.extraVolumeMounts }}
      volumeMounts:
        {{- $secretMounts | nindent 8 }}
        {{- with .Values.defaults.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- if or $secretMounts .Values.defaults.extraVolumes }}
  volumes:
    {{- include "tidings.secretVolumes" (dict "root" . "component" "setup") | nindent 4 }}
    {{- with .Values.defaults.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end -}}
