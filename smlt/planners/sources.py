"""Where the constants of a job's model come from: its profile, the price list, and guesses that say that they are."""

from __future__ import annotations

import math

from smlt.core.catalog import Catalog, FigurePath
from smlt.core.scene import ChannelOffer, Scene
from smlt.planners.analytic import COMPUTE_PRIORS
from smlt.planners.constants import SPREADS, Constant
from smlt.planners.transfer import merged, server_constants, store_constants

GUESSED_FLOPS_PER_VCPU = 1e10
GUESSED_USES = 20
"""How often an example uses a parameter: once in a dense layer, for each of its tokens in a transformer, for each place
of an image in a convolution."""

GUESS_SPREAD = 5.0
HERE_SPREAD, ELSEWHERE_SPREAD = 1.15, 1.6
"""Of a speed that was measured on this machine: on this machine at another time; on a cloud's vCPU."""


def constants_for(scene: Scene, channel: ChannelOffer) -> dict[str, Constant]:
    """What is believed of a job that nobody has observed, over one channel.

    Raises:
        ConfigError: the price list says too little of the channel.
    """
    read = store_constants if channel.table == "stores" else server_constants
    return merged(
        COMPUTE_PRIORS,
        compute_constants(scene),
        _start(scene, channel),
        read(scene.catalog, channel.entry, scene.functions),
    )


def compute_constants(scene: Scene) -> dict[str, Constant]:
    """How quickly a vCPU computes: as it was profiled, or a guess."""
    profile = scene.profile
    if profile.speed is None:
        per_example = 6 * GUESSED_USES * profile.parameters
        return {
            "examples_per_vcpu_s": Constant(
                GUESSED_FLOPS_PER_VCPU / per_example,
                ELSEWHERE_SPREAD if scene.shares_task else GUESS_SPREAD,
                f"smlt: a guess: 6 x {GUESSED_USES} x {profile.parameters} operations an example, at 1e10 a second",
            )
        }
    speed = profile.speed
    spread = HERE_SPREAD if scene.is_profiled_here else ELSEWHERE_SPREAD
    source = f"profiled {profile.taken_on} on {profile.machine}, {speed.steps} steps"
    found = {
        "examples_per_vcpu_s": Constant(speed.examples_per_vcpu_s, spread, source),
        "step_base_s": Constant(speed.step_base_s, spread, source),
    }
    if speed.vcpu_exponent is not None:
        told = f"{source}, on 1 and {speed.vcpus} vCPUs"
        found["vcpu_exponent"] = Constant(speed.vcpu_exponent, COMPUTE_PRIORS["vcpu_exponent"].spread, told)
    return found


def _start(scene: Scene, channel: ChannelOffer) -> dict[str, Constant]:
    """Start-up: the platform's, where a framework's import is in it; else what building the task took here. A server
    that is not there yet is made first."""
    offer = scene.catalog.functions.get(scene.functions)
    made = seconds_of(scene.catalog, ("servers", channel.entry, "create_s")) if channel.table == "servers" else None
    if offer is None or offer.start_s is None:
        told = "smlt: what building the task took on this machine"
        base = Constant(max(scene.profile.build_s, 0.01), 2.0, told)
    else:
        base = seconds_of(scene.catalog, ("functions", scene.functions, "start_s")) or COMPUTE_PRIORS["start_base_s"]
    if made is not None:
        base = Constant(base.value + made.value, made.spread, f"{base.source}; and the server: {made.source}")
    found = {"start_base_s": base}
    if offer is not None and offer.launches_per_s:
        rate = scene.catalog.provenance(("functions", scene.functions, "launches_per_s"))
        found["start_each_s"] = Constant.of(1 / offer.launches_per_s, rate)
    return found


def seconds_of(catalog: Catalog, path: FigurePath) -> Constant | None:
    """A range of seconds in a price list: between its ends lie two cases of three; None where it is not stated."""
    ends = getattr(catalog.offer_at(path), path[-1], None)
    if ends is None:
        return None
    low, high = (max(end, 0.01) for end in ends)
    said = catalog.provenance(path)
    spread = max(math.sqrt(high / low), SPREADS["high"])
    return Constant(math.sqrt(low * high), spread, f"{said.source} ({said.as_of}): {low:g} to {high:g} s")
