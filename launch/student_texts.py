"""Makes the default student's texts, to train on and held out, from Debian packages and a wheel.

Usage: student_texts.py WORDNET_DIR FORTUNES_DIR GENSIM_WHEEL OUTPUT_DIR

Writes train.txt and heldout.txt (a text a line), and three tasks that nothing is trained on: lee.tsv and
simlex.tsv in STS-B's format (human judgements), and senses.tsv in MRPC's (does the example show the sense?).
"""

from __future__ import annotations

import random
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

DATA = "gensim/test/test_data/"
DICTIONARY_TEXTS = 40_000  # of train.txt
HELD_OUT_SYNSETS = 50  # one in so many
PAIRS = 1000  # of senses.tsv
HELD_OUT_EXAMPLES = 400  # of heldout.txt

Sense = tuple[list[str], str, list[str]]  # words, gloss, examples


def wordnet(directory: Path) -> Iterator[Sense]:
    """Every synset of the database."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (directory / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            data, _, text = line.partition("|")
            fields = data.split()
            words = [
                re.sub(r"\(.*\)", "", fields[4 + 2 * i]).replace("_", " ") for i in range(int(fields[3], 16))
            ]
            examples = [found for e in re.findall(r'"([^"]+)"', text) if len((found := clean(e)).split()) > 3]
            gloss = clean(re.sub(r'[;:,]?\s*"[^"]*"', "", text).strip(" ;:"))
            if gloss:
                yield words, gloss, examples


def fortunes(directory: Path) -> Iterator[str]:
    """Every fortune that is prose, without its author's line."""
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.suffix and path.name not in {"ascii-art", "translate-me"}:
            for fortune in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                text = clean(re.sub(r"\n\s*-- .*", "", fortune, flags=re.DOTALL))
                if 20 < len(text) < 2000:
                    yield text


def clean(text: str) -> str:
    """One line, without quotes that a table would trip over."""
    return " ".join(re.sub(r"[^\x20-\x7e]", " ", text).replace('"', "'").split())


def write(path: Path, lines: list[str]) -> None:
    """A line each."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sts(path: Path, pairs: list[tuple[str, str, float]]) -> None:
    """STS-B's ten columns; scores are on the scale of the source."""
    names = ("index", "genre", "filename", "year", "old_index", "source1", "source2")
    rows = [f"{i}\t-\t-\t-\t{i}\t-\t-\t{a}\t{b}\t{score:g}" for i, (a, b, score) in enumerate(pairs)]
    write(path, ["\t".join((*names, "sentence1", "sentence2", "score")), *rows])


def senses_task(path: Path, held: list[Sense], rng: random.Random) -> None:
    """Half of the pairs are an example and its gloss, half an example and somebody else's."""
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    shown = [sense for sense in held if sense[2]]
    for number, (_, gloss, examples) in enumerate(rng.sample(shown, min(PAIRS, len(shown)))):
        label = number % 2
        other = gloss if label else rng.choice([g for _, g, _ in held if g != gloss])
        rows.append(f"{label}\t{number}\t{number}\t{examples[0]}\t{other}")
    write(path, rows)


def main() -> None:
    """Read three sources and write one directory."""
    wordnet_dir, fortunes_dir, wheel, output = (Path(argument) for argument in sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with zipfile.ZipFile(wheel) as archive:
        files = {
            name: archive.read(DATA + name).decode("cp1252", errors="replace").splitlines()
            for name in (
                "lee_background.cor",
                "lee.cor",
                "similarities0-1.txt",
                "simlex999.txt",
                "pang_lee_polarity.cor",
            )
        }
    simlex = [line.split("\t") for line in files["simlex999.txt"] if line and not line.startswith("#")]
    judged = {word for a, b, _ in simlex for word in (a, b)}

    synsets = list(wordnet(wordnet_dir))
    rng.shuffle(synsets)
    cut = len(synsets) // HELD_OUT_SYNSETS
    held, rest = synsets[:cut], synsets[cut:]
    reviews = [clean(line.partition(" ")[2]) for line in files["pang_lee_polarity.cor"]]
    rng.shuffle(reviews)
    reviews_cut = len(reviews) // 2

    glosses = []
    for words, gloss, examples in rest:
        glosses += [gloss, *examples]
        # A fifth of the glosses stands with a word, and a tenth of the words alone: texts may be that short.
        if words[0] not in judged and rng.random() < 0.2:
            glosses.append(f"{words[0]}: {gloss}")
        glosses += [word for word in words if word not in judged and rng.random() < 0.1]
    train = rng.sample(glosses, min(DICTIONARY_TEXTS, len(glosses)))
    train += [*reviews[reviews_cut:], *fortunes(fortunes_dir), *map(clean, files["lee_background.cor"])]
    rng.shuffle(train)
    held_out = [examples[0] for _, _, examples in held if examples][:HELD_OUT_EXAMPLES]
    documents = [clean(line) for line in files["lee.cor"]]
    known = {*documents, *held_out, *reviews[:reviews_cut]}
    write(output / "train.txt", list(dict.fromkeys(text for text in train if text and text not in known)))
    write(output / "heldout.txt", [*reviews[:reviews_cut], *documents, *held_out])

    table = [[float(value) for value in line.split("\t")] for line in files["similarities0-1.txt"] if line]
    pairs = [(i, j) for i in range(len(documents)) for j in range(i + 1, len(documents))]
    sts(output / "lee.tsv", [(documents[i], documents[j], table[i][j]) for i, j in pairs])
    sts(output / "simlex.tsv", [(a, b, float(score)) for a, b, score in simlex])
    senses_task(output / "senses.tsv", held, rng)


if __name__ == "__main__":
    main()
