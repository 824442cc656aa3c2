"""How posts and bulk bytes travel.

``base`` says what a connection and a service are; ``codec``, ``dispatch`` and ``connection`` are the
protocol without a network; ``grpc_server`` and ``grpc_client`` put it on mutual TLS; ``inprocess`` is the
same protocol in memory, for tests.
"""

from __future__ import annotations

import os

# gRPC writes handshake failures of strangers to standard error from C; ours are explained and logged instead.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
