"""The default student's texts, from miniatures of their sources: nothing held out is trained on."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from secformer_rt.distillation.tasks import find_task, read_task

ROOT = Path(__file__).parents[1]
DATA = "gensim/test/test_data/"


def write_sources(directory: Path) -> tuple[Path, Path, Path]:
    wordnet, fortunes, wheel = (directory / name for name in ("wordnet", "fortunes", "gensim.whl"))
    wordnet.mkdir()
    fortunes.mkdir()
    senses = [
        f'{n:08} 03 n 01 word_{n} 0 000 | the sense of {n}; "it shows number {n} here"  ' for n in range(300)
    ]
    lines = ["  1 This software and database is being provided to you", *senses]
    (wordnet / "data.noun").write_text("\n".join(lines) + "\n")
    for part in ("verb", "adj", "adv"):
        (wordnet / f"data.{part}").write_text("")
    (fortunes / "wisdom").write_text("A saying that is long enough.\n\t\t-- Somebody\n%\nshort\n%\n")
    (fortunes / "wisdom.dat").write_bytes(b"\0")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(DATA + "lee_background.cor", "A document about the news.\n")
        archive.writestr(
            DATA + "lee.cor", "First \u2014 document.\nSecond document.\nThird document.\n".encode("cp1252")
        )
        archive.writestr(DATA + "similarities0-1.txt", "1\t0.5\t0.25\n0\t1\t0.75\n0\t0\t1\n")
        archive.writestr(DATA + "simlex999.txt", "# comment\nword 3\tword 4\t7.5\n")
        archive.writestr(
            DATA + "pang_lee_polarity.cor", "__label__neg a dull film .\n__label__pos a fine film .\n"
        )
    return wordnet, fortunes, wheel


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    output = tmp_path / "texts"
    script = [sys.executable, ROOT / "launch" / "student_texts.py"]
    subprocess.run([*script, *write_sources(tmp_path), output], check=True, timeout=60)
    train = set((output / "train.txt").read_text().splitlines())
    held = (output / "heldout.txt").read_text().splitlines()
    assert {"A saying that is long enough.", "A document about the news."} < train
    assert not {"word 3", "word 4"} & train
    assert not train & set(held)
    assert len(train & {"a dull film .", "a fine film ."}) == 1
    lee = read_task(output / "lee.tsv", find_task("STS-B"))
    assert [(pair.first[:5], pair.label) for pair in lee] == [
        ("First", 0.5),
        ("First", 0.25),
        ("Secon", 0.75),
    ]
    assert [pair.label for pair in read_task(output / "simlex.tsv", find_task("STS-B"))] == [7.5]
    senses = read_task(output / "senses.tsv", find_task("MRPC"))
    assert len(senses) == 300 // 50
    for pair in senses:
        number = pair.first.split()[3]
        assert (pair.second == f"the sense of {number}") == bool(pair.label)
        assert not any(number in text.split() for text in train)
