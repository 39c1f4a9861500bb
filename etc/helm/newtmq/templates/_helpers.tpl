{{- define "newtmq.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "newtmq.selector" -}}
app.kubernetes.io/name: newtmq
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "newtmq.labels" -}}
{{ include "newtmq.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "newtmq.account" -}}
{{- .Values.serviceAccount.name | default (include "newtmq.name" .) -}}
{{- end }}

{{- define "newtmq.cookie" -}}
{{- .Values.cookieSecret | default (printf "%s-cookie" (include "newtmq.name" .)) -}}
{{- end }}
