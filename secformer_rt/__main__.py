"""``python -m secformer_rt`` is ``secformer-rt``."""

from secformer_rt.cli import main

if __name__ == "__main__":
    main()
