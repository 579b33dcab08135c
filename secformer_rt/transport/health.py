"""The standard gRPC health check, without what a caller could hold open."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME, HealthServicer

from secformer_rt.transport.channel import READY
from secformer_rt.transport.quota import Quota, caller_of, refuse


class Health:
    """Answers `Check`. `Watch` is not offered: it would keep a call open for as long as its caller likes."""

    def __init__(self, patience_s: float, each: int) -> None:
        """Not ready yet.

        Args:
            patience_s: How long a caller may take to ask.
            each: How many checks one caller may have open.
        """
        self._patience_s = patience_s
        self._quota = Quota(each)
        self._servicer = HealthServicer()
        self.set_ready(False)

    def handler(
        self,
    ) -> grpc.GenericRpcHandler[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
        """What the server offers."""
        # On the wire a check looks the same, and its thread need not wait for a question that never comes.
        check = grpc.stream_stream_rpc_method_handler(
            self._check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE_NAME, {"Check": check})

    def set_ready(self, ready: bool) -> None:
        """Say whether this party can take a run."""
        status = health_pb2.HealthCheckResponse
        self._servicer.set(READY, status.SERVING if ready else status.NOT_SERVING)

    def stop(self) -> None:
        """Say that this party serves no more."""
        self._servicer.enter_graceful_shutdown()

    def _check(
        self, requests: Iterator[health_pb2.HealthCheckRequest], context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        caller = caller_of(context)
        if not self._quota.take(caller):
            refuse(context)
        patience = threading.Timer(self._patience_s, context.cancel)
        patience.daemon = True
        patience.start()
        try:
            for request in requests:
                yield self._servicer.Check(request, context)
                return
        except grpc.RpcError:
            return  # the caller has gone, or has taken too long
        finally:
            patience.cancel()
            self._quota.give(caller)
