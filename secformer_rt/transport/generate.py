"""Regenerate `wire_pb2.py` and `wire_pb2.pyi`: `python -m secformer_rt.transport.generate`.

Run it from a source checkout after a change of `proto/secformer_rt.proto`; it needs grpcio-tools.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

PROTO_FILE = Path(__file__).parents[2] / "proto" / "secformer_rt.proto"
MODULE = "secformer_rt/transport/wire"


def generate(destination: Path) -> list[Path]:
    """Write the Python module, its stub and the binary descriptor set under a directory.

    Args:
        destination: The root that the package path `secformer_rt/transport/` is created under.

    Returns:
        The module, the stub and the descriptor set, in this order.

    Raises:
        RuntimeError: The compiler refuses the proto file.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as scratch:
        # The generated module takes the name of the proto file, which has another one here.
        source = Path(scratch) / f"{MODULE}.proto"
        source.parent.mkdir(parents=True)
        shutil.copy(PROTO_FILE, source)
        destination.mkdir(parents=True, exist_ok=True)
        outputs = [destination / f"{MODULE}{suffix}" for suffix in ("_pb2.py", "_pb2.pyi", ".bin")]
        outputs[-1].parent.mkdir(parents=True, exist_ok=True)
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={scratch}",
                f"--python_out={destination}",
                f"--pyi_out={destination}",
                f"--descriptor_set_out={outputs[-1]}",
                str(source),
            ]
        )
    if status != 0:
        raise RuntimeError(f"protoc refused {PROTO_FILE} with status {status}")
    outputs[1].write_text(f"# mypy: ignore-errors\n{outputs[1].read_text()}")
    return outputs


def main() -> None:
    """Replace the committed module and stub."""
    with tempfile.TemporaryDirectory() as scratch:
        for output in generate(Path(scratch))[:2]:
            shutil.copy(output, Path(__file__).parent / output.name)


if __name__ == "__main__":
    main()
