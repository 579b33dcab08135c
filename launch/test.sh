#!/usr/bin/env bash
# Lints, checks types and runs the tests. Arguments go to pytest.
set -euo pipefail

# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up "[test]"
cd "$root"
"$venv/bin/ruff" check
"$venv/bin/ruff" format --check
"$venv/bin/mypy"
exec "$venv/bin/pytest" -n 2 --dist loadfile "$@"
