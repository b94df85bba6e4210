"""The fuzz targets hold for what they begin with; `make fuzz` goes on from there."""

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzz_target_holds_for_its_seeds(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) >= 10
    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x09", b"\xff\xff\xff"])
def test_a_fuzz_target_takes_anything(name: str, data: bytes) -> None:
    TARGETS[name].run(data)
