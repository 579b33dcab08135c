#!/usr/bin/env bash
# Breaks parties and links in every phase of a run, and sees that all end well. Arguments go to
# `secformer-rt bench faults`, such as --seed 2 --cases 168; --json prints one JSON object on standard output and
# nothing else.
set -euo pipefail

# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up ""
exec "$venv/bin/secformer-rt" bench faults "$@"
