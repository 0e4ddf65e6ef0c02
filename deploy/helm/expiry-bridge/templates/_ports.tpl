{{- /* The port of health and metrics; empty where BRIDGE_HTTP_PORT is 0, which switches them off. */}}
{{- define "expiry-bridge.port" -}}
{{- $port := hasKey .Values.env "BRIDGE_HTTP_PORT" | ternary .Values.env.BRIDGE_HTTP_PORT 8080 | toString }}
{{- if ne $port "0" }}{{ $port }}{{ end }}
{{- end }}

{{- /*
The TCP ports of the servers that the settings name, as {ports: [...]}, in order. A sink that is not used has none. Where
a URL is in a secret, its default port counts; what that misses, networkPolicy.egressPorts adds.
*/}}
{{- define "expiry-bridge.egress" -}}
{{- $env := .Values.env }}
{{- $sink := $env.BRIDGE_SINK | default "jetstream" }}
{{- $servers := list ($env.BRIDGE_REDIS_URL | default "redis://:6379") }}
{{- if eq $sink "jetstream" }}
{{- $servers = append $servers ($env.BRIDGE_NATS_URL | default "nats://:4222") }}
{{- else if eq $sink "kafka" }}
{{- range splitList "," ($env.BRIDGE_KAFKA_BOOTSTRAP_SERVERS | default ":9092") }}
{{- $servers = append $servers (printf "kafka://%s" (trim .)) }}
{{- end }}
{{- end }}
{{- range $name, $url := omit $env "BRIDGE_REDIS_URL" "BRIDGE_NATS_URL" }}
{{- if hasSuffix "_URL" $name }}{{ $servers = append $servers $url }}{{ end }}
{{- end }}
{{- $defaults := dict "nats" 4222 "tls" 4222 "kafka" 9092 "http" 80 "https" 443 "ws" 80 "wss" 443 }}
{{- $ports := .Values.networkPolicy.egressPorts }}
{{- range $url := $servers }}
{{- $scheme := regexFind "^[a-z+]+://" $url | trimSuffix "://" }}
{{- $default := get $defaults $scheme | default (ternary 26379 6379 (hasSuffix "+sentinel" $scheme)) }}
{{- if hasSuffix "+sentinel" $scheme }}{{ $ports = append $ports 6379 }}{{ end }}
{{- range $server := regexReplaceAll "^[a-z+]+://" $url "" | splitList "," }}
{{- $address := regexReplaceAll "/.*$" (regexReplaceAll "^ *[a-z]+://" $server "") "" }}
{{- if ne $scheme "unix" }}
{{- $ports = append $ports (regexFind ":[0-9]+$" $address | trimPrefix ":" | default $default | int) }}
{{- end }}
{{- end }}
{{- end }}
{{- $sorted := list }}
{{- range $ports }}{{ $sorted = append $sorted (printf "%05d" (int .)) }}{{ end }}
ports:
{{- range $sorted | uniq | sortAlpha }}
  - {{ regexReplaceAll "^0+" . "" }}
{{- end }}
{{- end }}
