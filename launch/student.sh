#!/usr/bin/env bash
# Builds the default student, all-MiniLM-L6-v2 with SecFormer's approximations, and evaluates it. Texts come from
# the Debian packages wordnet-base and fortunes and from the test data in gensim's wheel; they, and the student,
# stay in .student. Called again after an interruption, it goes on. Arguments go to `secformer-rt distill`.
set -euo pipefail

# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

work=$root/.student
texts=$work/texts
student=$work/model

# debian_package NAME DIRECTORY: prints where the package's DIRECTORY is, installed here or unpacked in .student.
debian_package() {
    local name=$1 directory=$2
    if [[ -d $directory ]]; then
        echo "$directory"
        return
    fi
    if [[ ! -d $work/$name ]]; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            echo "$directory is missing: install WordNet 3.0 and the fortunes there, or run this on Debian." >&2
            return 1
        fi
        # A download needs no root, but apt's own sandbox wants a directory that everybody may read.
        (cd "$work" && apt-get download --quiet=2 "$name" >&2)
        dpkg-deb -x "$work/$name"_*.deb "$work/$name"
    fi
    echo "$work/$name$directory"
}

set_up ""
mkdir -p "$work"
if [[ ! -f $texts/train.txt ]]; then
    wordnet=$(debian_package wordnet-base /usr/share/wordnet)
    fortunes=$(debian_package fortunes /usr/share/games/fortunes)
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work" gensim >&2
    "$venv/bin/python" "$root/launch/student_texts.py" "$wordnet" "$fortunes" "$work"/gensim-*.whl "$texts"
fi
if [[ ! -f $student/distillation.json ]]; then
    "$venv/bin/secformer-rt" distill --text "$texts/train.txt" --heldout "$texts/heldout.txt" \
        --output "$student" "$@"
fi

evaluate() {
    "$venv/bin/secformer-rt" evaluate "$texts/$1" --checkpoint "$student" --batch 8 "${@:2}"
}
evaluate lee.tsv --task STS-B --tokens 192 --secure-limit 0
evaluate simlex.tsv --task STS-B --secure-limit 0
evaluate senses.tsv --task MRPC --threshold 0.25 --secure-limit 200
