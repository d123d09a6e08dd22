"""A small run of the simulation of the gate: chance makes few champions, and what is much better becomes one."""

from benchmarks.gate import better, measured
from benchmarks.simulation import WORLDS


def test_chance_makes_few_champions_and_what_is_better_becomes_one() -> None:
    world = WORLDS[0]
    alike = measured(world, 500, 6, 60)
    improved = measured(better(world), 1500, 6, 20)

    # Of 60, with a rate of 0.025, more than 5 come up once in a thousand times.
    assert alike["truth"] == 0 and alike["gate"] <= 5 / 60
    # The best of six is larger than one more of them in six of seven cases.
    assert alike["larger_f1"] > 0.6
    assert improved["truth"] == 3 and improved["gate"] >= 0.4
