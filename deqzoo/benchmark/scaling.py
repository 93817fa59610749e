"""How long a training step takes on many devices: a model of data parallelism, with its assumptions as numbers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines with several devices each. Bandwidths are of one device, in one direction, in bytes per second.

    The defaults are modest for nodes of eight H100: 300 of NVLink's 450 GB/s, and 40 of the 50 GB/s that a network
    card of 400 Gb/s per device has.

    Attributes:
        per_node: devices of a machine.
        within: bandwidth between devices of a machine.
        between: bandwidth between machines.
        latency: of a message, in seconds.
        overlap: share of the backward pass behind which communication hides. 0 is right for one equilibrium, whose
            weights get their gradient at the end of the backward pass, all at once; explicit networks have about 0.7.
    """

    per_node: int = 8
    within: float = 300e9
    between: float = 40e9
    latency: float = 10e-6
    overlap: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """A training step of one device, as measured.

    Attributes:
        seconds: it takes, without communication.
        backward: share of these that the backward pass has.
        gradient_bytes: of all parameters that are trained.
    """

    seconds: float
    backward: float
    gradient_bytes: int


def all_reduce_seconds(num_bytes: int, gpus: int, cluster: Cluster) -> float:
    """Returns how long it takes to sum so many bytes over all devices: a ring in each machine, then one across."""
    local = min(gpus, cluster.per_node)
    nodes = math.ceil(gpus / cluster.per_node)
    inside = 2 * (local - 1) / local * num_bytes / cluster.within
    across = 2 * (nodes - 1) / nodes * num_bytes / local / cluster.between
    # A tree across machines: rings of hundreds of them would wait for messages more than for bytes.
    messages = 2 * (local - 1) + 2 * math.ceil(math.log2(nodes))
    return inside + across + messages * cluster.latency


def sent_bytes(num_bytes: int, gpus: int) -> float:
    """Returns the bytes that every device sends per step."""
    return 2 * (gpus - 1) / gpus * num_bytes


def step_seconds(cost: StepCost, gpus: int, cluster: Cluster) -> float:
    """Returns how long a step takes on so many devices, each with as many samples as one had (weak scaling)."""
    communication = all_reduce_seconds(cost.gradient_bytes, gpus, cluster)
    hidden = min(communication, cluster.overlap * cost.backward * cost.seconds)
    return cost.seconds + communication - hidden


def efficiency(cost: StepCost, gpus: int, cluster: Cluster) -> float:
    """Returns the share of the devices' time that is not spent on waiting for each other."""
    return cost.seconds / step_seconds(cost, gpus, cluster)
