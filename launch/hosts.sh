#!/usr/bin/env bash
# Measures an inference between hosts that are emulated on this machine, which needs Linux and root. Arguments
# go to `secformer-rt bench network`, such as --profile wan; --json prints one JSON object on standard output
# and nothing else.
set -euo pipefail

# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up ""
exec "$venv/bin/secformer-rt" bench network "$@"
