"""Links between parties: framed messages over gRPC streams, or in-process for tests."""

import os

# The C core reads both once, when grpc is first imported. Parties start by spawn, never by fork, and every
# failure is reported as one sentence of ours, so the core must not write its own to stderr.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
