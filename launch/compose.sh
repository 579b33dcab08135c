#!/usr/bin/env bash
# Builds the image, runs docker-compose.yml, and exits with 0 only if its client printed a right answer: with
# Docker where there is an engine, else with podman and podman-compose. BASE names another base image;
# BUILD_OPTIONS are handed to the build, for instance what pip needs to find packages. --netem slows the links
# down, as docker-compose.netem.yml says.
set -euo pipefail

netem=""
case "$*" in
    "") ;;
    --netem) netem=yes ;;
    *)
        echo "error: launch/compose.sh takes --netem, or nothing." >&2
        exit 2
        ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export COMPOSE_PROJECT_NAME=secformer-rt
read -r -a options <<<"${BUILD_OPTIONS:-}"
if [[ -n "${BASE:-}" ]]; then options+=(--build-arg "BASE=$BASE"); fi
answer="$(mktemp)"

build() {
    "$1" build "${options[@]}" --tag secformer-rt .
    if [[ -n "$netem" ]]; then "$1" build "${options[@]}" --tag secformer-rt-netem launch/netem; fi
}

with_docker() {
    files=(--file docker-compose.yml)
    if [[ -n "$netem" ]]; then files+=(--file docker-compose.netem.yml); fi
    compose() { docker compose "${files[@]}" "$@"; }
    trap 'compose down --volumes --timeout 10 >/dev/null 2>&1; rm -f "$answer"' EXIT
    build docker
    if ! compose up --detach --no-build; then
        compose logs >&2
        echo "error: not everything came up." >&2
        exit 1
    fi
    local client
    client="$(compose ps --all --quiet client)"
    docker wait "$client" >/dev/null
    docker logs "$client" >"$answer" 2>/dev/null
}

# podman-compose starts everything at once, whatever a service waits for, so services are started one by one.
with_podman() {
    compose() { timeout 300 podman-compose -p "$COMPOSE_PROJECT_NAME" "$@" >/dev/null 2>&1; }
    trap 'compose down --volumes; rm -f "$answer"' EXIT
    build podman
    compose down --volumes || true
    compose up --no-start
    local service
    for service in certs dealer server0 server1 client; do
        podman start "$(container "$service")" >/dev/null
        if [[ -n "$netem" && "$service" != certs ]]; then shape "$service"; fi
        case "$service" in
            certs | client) timeout 900 podman wait "$(container "$service")" >/dev/null ;;
            *) until_ready "$(container "$service")" "$service" ;;
        esac
    done
    podman logs "$(container client)" >"$answer" 2>/dev/null
}

container() { echo "${COMPOSE_PROJECT_NAME}_$1_1"; }

# As docker-compose.netem.yml has it; podman-compose may not know `network_mode: service:`.
shape() {
    podman run --rm --network "container:$(container "$1")" --read-only --cap-drop ALL --cap-add NET_ADMIN \
        --security-opt no-new-privileges --env SECFORMER_RT_DELAY_MS --env SECFORMER_RT_MBIT secformer-rt-netem >&2
}

# Its log says so: `podman exec` is more than some hosts allow.
until_ready() {
    local deadline=$((SECONDS + 600))
    until podman logs "$1" 2>&1 | grep -q "\"role\": \"$2\", \"event\": \"ready\""; do
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
