"""The model of many devices agrees with what can be said without it."""

import pytest

from deqzoo.benchmark.scaling import Cluster, StepCost, all_reduce_seconds, efficiency, sent_bytes, step_seconds

FREE = Cluster(latency=0.0)
MDEQ = StepCost(seconds=0.5, backward=0.3, gradient_bytes=72_000_000)


def test_one_device_has_nobody_to_talk_to():
    assert all_reduce_seconds(10**9, 1, Cluster()) == 0
    assert step_seconds(MDEQ, 1, Cluster()) == MDEQ.seconds
    assert sent_bytes(10**9, 1) == 0


def test_a_machine_sums_by_a_ring():
    # Each sends 2 (n - 1) / n of the bytes.
    assert all_reduce_seconds(8 * 10**9, 8, FREE) == pytest.approx(14e9 / FREE.within)
    assert sent_bytes(8 * 10**9, 8) == pytest.approx(14e9)


def test_across_machines_every_device_has_its_share():
    inside = all_reduce_seconds(8 * 10**9, 8, FREE)
    assert all_reduce_seconds(8 * 10**9, 16, FREE) - inside == pytest.approx(1e9 / FREE.between)


def test_more_devices_wait_longer_but_not_much():
    shares = [efficiency(MDEQ, 2**i, Cluster()) for i in range(11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[-1] > 0.99


def test_what_is_hidden_costs_nothing():
    slow = StepCost(seconds=1.0, backward=0.5, gradient_bytes=10**9)
    wait = all_reduce_seconds(10**9, 64, Cluster())
    assert step_seconds(slow, 64, Cluster(overlap=0.0)) == pytest.approx(1 + wait)
    assert step_seconds(slow, 64, Cluster(overlap=1.0)) == pytest.approx(1.0)
    assert step_seconds(slow, 64, Cluster(overlap=wait)) == pytest.approx(1 + wait / 2)
