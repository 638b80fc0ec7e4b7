{{- define "fleetward.selector" -}}
app.kubernetes.io/name: fleetward
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* Labels of an object: (list $ "component"). Helm adds app.kubernetes.io/managed-by where it installs. */}}
{{- define "fleetward.labels" -}}
{{ include "fleetward.selector" (index . 1) }}
app.kubernetes.io/part-of: fleetward
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{- /* Operator and admission must name the same image: the policy of governed pods compares what admission injects. */}}
{{- define "fleetward.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* Resources without those that are empty, so that a default can be unset. */}}
{{- define "fleetward.resources" -}}
{{- range $part, $amounts := . }}
{{- $given := dict }}
{{- range $name, $amount := $amounts }}
{{- if $amount }}{{ $_ := set $given $name $amount }}{{ end }}
{{- end }}
{{- if $given }}
{{ $part }}: {{ toJson $given }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Metadata of pods: (list $ "component"). */}}
{{- define "fleetward.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- $own := fromYaml (include "fleetward.labels" .) }}
  {{- toYaml (mergeOverwrite (deepCopy $root.Values.podLabels) $own) | nindent 2 }}
{{- with $root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What the pods of both programs have in common: (list $ "component" values). */}}
{{- define "fleetward.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: fleetward-{{ $component }}
automountServiceAccountToken: true
# The variables of a Service named fleetward-... would look like options.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
affinity:
  {{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "fleetward.selector" $component | nindent 12 }}
  {{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
{{- toYaml $values.topologySpreadConstraints | nindent 0 }}
{{- else }}
- topologyKey: topology.kubernetes.io/zone
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "fleetward.selector" $component | nindent 6 }}
{{- end }}
{{- end }}

{{- /* What the containers of both programs have in common: (list $ "component" values). */}}
{{- define "fleetward.container" -}}
{{- $root := index . 0 -}}
image: {{ include "fleetward.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [fleetward-{{ index . 1 }}]
resources:
  {{- include "fleetward.resources" (index . 2).resources | trim | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
# Starting takes as long as reading everything there is; then a program that hangs is ended soon.
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- /* A PodDisruptionBudget: (list $ "component" values). */}}
{{- define "fleetward.disruptionBudget" -}}
{{- with (index . 2).disruptionBudget }}
{{- if .enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: fleetward-{{ index $ 1 }}
  namespace: {{ (index $ 0).Release.Namespace }}
  labels:
    {{- include "fleetward.labels" $ | nindent 4 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  # A pod that does not serve anyway must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "fleetward.selector" (index $ 1) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}
