"""``python -m secformer_rt`` is ``secformer-rt``."""

from __future__ import annotations

from secformer_rt.interrupts import interruptible


def main() -> None:
    """Run the command line."""
    with interruptible():
        # Here, because it takes seconds, in which somebody may well press Ctrl-C.
        from secformer_rt.cli import main as command

        command()


if __name__ == "__main__":
    main()
