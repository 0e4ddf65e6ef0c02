{{- define "expiry-bridge.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "expiry-bridge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "expiry-bridge.labels" -}}
{{ include "expiry-bridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "expiry-bridge.metadata" -}}
name: {{ include "expiry-bridge.name" . }}
labels:
  {{- include "expiry-bridge.labels" . | nindent 2 }}
{{- end }}

{{- define "expiry-bridge.account" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "expiry-bridge.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- /* A value as an environment variable wants it. Helm reads a large number as 1e+06, which is no integer there. */}}
{{- define "expiry-bridge.text" -}}
{{- if kindIs "string" . }}{{ quote . }}{{ else }}{{ toJson . | quote }}{{ end }}
{{- end }}

{{- /* OpenShift gives each namespace its own users and groups, and admits no others. */}}
{{- define "expiry-bridge.podSecurityContext" -}}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- toYaml (omit .Values.podSecurityContext "runAsUser" "runAsGroup" "fsGroup") }}
{{- else }}
{{- toYaml .Values.podSecurityContext }}
{{- end }}
{{- end }}

{{- define "expiry-bridge.annotations" -}}
{{- $given := dict }}
{{- if and .Values.scrapeAnnotations (not .Values.podMonitor.enabled) (include "expiry-bridge.port" .) }}
{{- $_ := set $given "prometheus.io/scrape" "true" }}
{{- $_ := set $given "prometheus.io/port" (include "expiry-bridge.port" .) }}
{{- end }}
{{- with merge (deepCopy .Values.podAnnotations) $given }}{{ toYaml . }}{{ end }}
{{- end }}
