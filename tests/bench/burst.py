"""Calls made at a gateway at the same time, and what they cost whom."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench.gateway import Gateway
from bench.site import Site
from bench.tally import Tally, merged
from bench.void import VoidError, miscounted, too_busy

_SETTLE_SECONDS_MAX = 1.0
_LOOK_SECONDS = 0.05
# In one look; an idle gateway uses less.
_QUIET_CPU_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What it has brought and cost.

    Attributes:
        tally: what the clients have counted.
        gateway_seconds: CPU time of the gateway and all it has started.
        engine_seconds: CPU time of the load engine.
        companion_seconds: CPU time of what runs beside the gateway.
        client_seconds: CPU time of the load clients.
        busiest_client_seconds: CPU time of the one of them that used most.
    """

    tally: Tally
    gateway_seconds: float
    engine_seconds: float
    companion_seconds: float
    client_seconds: float
    busiest_client_seconds: float

    @property
    def void(self) -> str:
        """Why it may show the load programs' speed instead of the gateway's; empty if it does not."""
        return too_busy(
            client_seconds=self.busiest_client_seconds,
            engine_seconds=self.engine_seconds,
            wall_seconds=self.tally.wall_seconds,
        )


def burst(
    site: Site, gateway: Gateway, *, streams: int, tokens: int, seconds_max: float, settled: bool = True
) -> Burst:
    """Makes calls and waits until they and what they leave to do have ended.

    Args:
        site: with the load programs.
        gateway: where the calls are made, the same number at each of its doors.
        streams: how many, all at once.
        tokens: that each answer has.
        seconds_max: after which the clients give up.
        settled: whether to wait for what the gateway does afterwards; without it its CPU time is not all there.

    Raises:
        VoidError: if a call failed, a token is missing or too many, or a process has ended.
    """
    gateway_before, engine_before = gateway.cpu_seconds(), site.engine.child.tree.cpu_seconds()
    companion_before = gateway.companion_seconds()
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                site.client.calling(
                    gateway.system,
                    door,
                    streams=count,
                    tokens=tokens,
                    seconds_max=seconds_max,
                    folder=gateway.folder,
                    name=f"client-{number}",
                )
            )
            for number, (door, count) in enumerate(zip(gateway.doors, split(streams, len(gateway.doors)), strict=True))
        ]
        try:
            tallies = [calls.finish() for calls in running]
        except VoidError as error:
            raise VoidError(gateway.ended() or str(error)) from error
    if settled:
        settle(gateway)
    tally = merged(tallies)
    if told := gateway.ended() or site.engine.child.ended() or miscounted(tally):
        raise VoidError(told)
    return Burst(
        tally=tally,
        gateway_seconds=gateway.cpu_seconds() - gateway_before,
        engine_seconds=site.engine.child.tree.cpu_seconds() - engine_before,
        companion_seconds=gateway.companion_seconds() - companion_before,
        client_seconds=tally.cpu_seconds,
        busiest_client_seconds=max(one.cpu_seconds for one in tallies),
    )


def split(streams: int, doors: int) -> list[int]:
    """Returns how many streams each door gets, as equal as they can be."""
    return [streams // doors + (number < streams % doors) for number in range(doors)]


def settle(gateway: Gateway) -> None:
    """Waits until a gateway has done what calls that have ended leave to do, a second at most."""
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    used = gateway.cpu_seconds()
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        before, used = used, gateway.cpu_seconds()
        quiet = quiet + 1 if used - before < _QUIET_CPU_SECONDS else 0
