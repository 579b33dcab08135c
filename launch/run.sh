#!/usr/bin/env bash
# Runs the main job: three parties on this machine answer a private question. Arguments go to
# `secformer-rt run`; --json prints one JSON object on standard output and nothing else.
set -euo pipefail

# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up ""
exec "$venv/bin/secformer-rt" run "$@"
