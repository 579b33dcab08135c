"""Networks between the parties: the profiles that plans predict for and that emulations set up."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import explain

CUSTOM = "custom"


class Network(BaseModel):
    """One link, the same for every pair of parties, in both directions at once.

    ``rtt_ms`` is a round trip in milliseconds, ``mbit`` the rate of each direction in 10^6 bits a second,
    or None for no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rtt_ms: FiniteFloat = Field(ge=0)
    mbit: FiniteFloat | None = Field(default=None, gt=0)

    @property
    def rtt_s(self) -> float:
        """Seconds of a round trip."""
        return self.rtt_ms / 1e3

    def transfer_s(self, size: int) -> float:
        """Seconds that ``size`` bytes occupy one direction."""
        return 0.0 if self.mbit is None else 8 * size / (1e6 * self.mbit)


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(name="loopback", rtt_ms=0.2),  # measured: gRPC streams on one machine
        Network(name="lan", rtt_ms=0.5, mbit=1_000),
        Network(name="lan10", rtt_ms=0.2, mbit=10_000),
        Network(name="man", rtt_ms=4, mbit=400),
        Network(name="wan", rtt_ms=40, mbit=200),
        Network(name="wan-far", rtt_ms=80, mbit=100),
    )
}


def find_network(name: str) -> Network:
    """The profile of a name.

    Raises:
        BadConfigError: there is none.
    """
    if name not in NETWORKS:
        raise BadConfigError(f"There is no network profile {name!r}: choose one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def custom_network(rtt_ms: float | None, mbit: float | None) -> Network:
    """A profile of one's own; what is left out is as on the loopback interface.

    Raises:
        BadConfigError: a number is negative, or not finite.
    """
    try:
        return Network(
            name=CUSTOM, rtt_ms=NETWORKS["loopback"].rtt_ms if rtt_ms is None else rtt_ms, mbit=mbit
        )
    except ValidationError as error:
        raise BadConfigError(f"The custom network is not valid: {explain(error)}.") from error
