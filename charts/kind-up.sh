#!/usr/bin/env bash
# Brings up a kind cluster with Fleetward in it: cluster, image, manifests. Run again, it brings the cluster up to date.
# `kind-up.sh --down` deletes the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=fleetward
image=$(sed -n 's/^ *image: "\(fleetward:[^"]*\)"$/\1/p' deploy/fleetward.yaml | sort -u)

say() { printf '%s\n' "$*" >&2; }

missing=()
for program in docker kind kubectl; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
  say "kind-up needs ${missing[*]}, not found on this machine. \`make demo-cluster\` needs none of them."
  exit 1
fi

if [[ ${1:-} == --down ]]; then
  exec kind delete cluster --name "$cluster"
fi

if ! kind get clusters | grep -qx "$cluster"; then
  kind create cluster --config kind-config.yaml --wait 180s
fi
docker build --tag "$image" .
kind load docker-image "$image" --name "$cluster"

kubectl() { command kubectl --context "kind-$cluster" "$@"; }
kubectl apply --server-side --force-conflicts -f deploy/fleetward.yaml
# The image keeps its name while it is worked on, so what runs may be an older one.
kubectl --namespace fleetward-system rollout restart statefulset/fleetward-operator deployment/fleetward-admission
kubectl --namespace fleetward-system rollout status statefulset/fleetward-operator --timeout=300s
kubectl --namespace fleetward-system rollout status deployment/fleetward-admission --timeout=300s

say "Fleetward runs. Now for example:"
say "  kubectl --context kind-$cluster create namespace reports"
say "  kubectl --context kind-$cluster apply -f examples/report-pipeline"
say "  kubectl --context kind-$cluster get fleetward --all-namespaces"
