{{- define "expiry-bridge.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "expiry-bridge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "expiry-bridge.metadata" -}}
name: {{ include "expiry-bridge.name" . }}
labels:
  {{- include "expiry-bridge.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "expiry-bridge.port" -}}
{{ .Values.env.BRIDGE_HTTP_PORT | default 8080 }}
{{- end }}

{{- /* A value as an environment variable wants it. Helm reads a large number as 1e+06, which is no whole number there. */}}
{{- define "expiry-bridge.text" -}}
{{- if kindIs "string" . }}{{ quote . }}{{ else }}{{ toJson . | quote }}{{ end }}
{{- end }}
