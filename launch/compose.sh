#!/usr/bin/env bash
# Builds the image, runs docker-compose.yml, and exits with 0 only if its client printed a right answer: with
# Docker where there is an engine, else with podman and podman-compose. BASE names another base image;
# BUILD_OPTIONS are handed to the build, for instance what pip needs to find packages.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export COMPOSE_PROJECT_NAME=secformer-rt
read -r -a options <<<"${BUILD_OPTIONS:-}"
if [[ -n "${BASE:-}" ]]; then options+=(--build-arg "BASE=$BASE"); fi
answer="$(mktemp)"

with_docker() {
    trap 'docker compose down --volumes --timeout 10 >/dev/null 2>&1; rm -f "$answer"' EXIT
    docker build "${options[@]}" --tag secformer-rt .
    docker compose up --detach --no-build
    docker wait "$(docker compose ps --all --quiet client)" >/dev/null
    docker compose logs --no-log-prefix client >"$answer"
}

# podman-compose starts everything at once, whatever a service waits for, so services are started one by one.
with_podman() {
    trap 'timeout 120 podman-compose -p "$COMPOSE_PROJECT_NAME" down --volumes >/dev/null 2>&1; rm -f "$answer"' EXIT
    podman build "${options[@]}" --tag secformer-rt .
    timeout 120 podman-compose -p "$COMPOSE_PROJECT_NAME" down --volumes >/dev/null 2>&1 || true
    local name="${COMPOSE_PROJECT_NAME}_%s_1" service container
    timeout 300 podman-compose -p "$COMPOSE_PROJECT_NAME" up --no-start >/dev/null 2>&1
    for service in certs dealer server0 server1 client; do
        # shellcheck disable=SC2059
        container="$(printf "$name" "$service")"
        podman start "$container" >/dev/null
        case "$service" in
            certs | client) timeout 900 podman wait "$container" >/dev/null ;;
            *) until_ready "$container" "$service" ;;
        esac
    done
    podman logs "$container" >"$answer" 2>/dev/null
}

# Its log says so: `podman exec` is more than some hosts allow.
until_ready() {
    local deadline=$((SECONDS + 600))
    until podman logs "$1" 2>&1 | grep -q "$2 is ready"; do
        if ((SECONDS > deadline)) || [[ "$(podman inspect --format '{{.State.Running}}' "$1")" != true ]]; then
            podman logs "$1" >&2
            echo "error: $1 does not come up." >&2
            exit 1
        fi
        sleep 1
    done
}

if docker info >/dev/null 2>&1; then
    with_docker
elif command -v podman >/dev/null && command -v podman-compose >/dev/null; then
    with_podman
else
    echo "error: neither a Docker engine nor podman with podman-compose was found: install one of them." >&2
    exit 1
fi

cat "$answer"
python3 - "$answer" <<'CHECK'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    lines = [line for line in file if line.startswith("{")]
if not lines:
    sys.exit("error: the client printed no answer.")
found = json.loads(lines[-1])
if found["fidelity"]["cosine_min"] < 0.999 or found["rounds"] != found["planned_rounds"] or found["insecure"]:
    sys.exit("error: the answer is not right.")
CHECK
