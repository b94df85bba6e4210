"""Alias chains, and the entries that are refused."""

from collections.abc import Callable

import pytest

from config.faults import ConfigFaults, Fault
from config.schema import ModelAlias
from routing.aliases import MAX_STEPS, Aliases
from tests.cost import least_seconds


def aliases(*pairs: tuple[str, str]) -> Aliases:
    return Aliases([ModelAlias(from_=from_, to=to) for from_, to in pairs], ("openai", "anthropic"))


@pytest.mark.parametrize(
    ("pairs", "name", "expected"),
    [
        ([], "gpt-4", "gpt-4"),
        ([("fast", "openai/gpt-4o-mini")], "fast", "openai/gpt-4o-mini"),
        ([("fast", "openai/gpt-4o-mini")], "FAST", "FAST"),
        ([("claude-*", "anthropic/claude-*")], "claude-x-1", "anthropic/claude-x-1"),
        ([("*:*", "*/*")], "openai:gpt-4", "openai/gpt-4"),
        ([("*", "openai/gpt-4o")], "anything", "openai/gpt-4o"),
        # An exact name comes before a glob, a more specific glob before a broader one, wherever they stand.
        ([("*", "a"), ("gpt-4", "d")], "gpt-4", "a"),  # d, which `*` takes in turn
        (
            [("*", "openai/a"), ("gpt-*", "openai/b"), ("gpt-4*", "openai/c"), ("gpt-4", "openai/d")],
            "gpt-4",
            "openai/d",
        ),
        ([("*", "openai/a"), ("gpt-*", "openai/b"), ("gpt-4*", "openai/c")], "gpt-4", "openai/c"),
        ([("gpt-?", "openai/a"), ("gpt-*", "openai/b")], "gpt-4", "openai/a"),  # equal: the earlier in the file
        # Chains.
        ([("fast", "cheap"), ("cheap", "openai/gpt-4o-mini")], "fast", "openai/gpt-4o-mini"),
        # A target is never aliased again, but what the client spelled like one is.
        ([("fast", "openai/gpt-4"), ("openai/*", "anthropic/*")], "fast", "openai/gpt-4"),
        ([("anthropic/claude-*", "openai/gpt-*")], "anthropic/claude-4", "openai/gpt-4"),
        # A slash alone makes no target: the part before it must be a provider.
        ([("fast", "meta/llama"), ("meta/*", "openai/*")], "fast", "openai/llama"),
        # Every entry applies once.
        ([("a*", "b*"), ("b*", "a*")], "ax", "ax"),
        ([("*", "x*")], "y", "xy"),
        ([("{gpt-4,gpt-4o}", "gpt-4")], "gpt-4o", "gpt-4"),
    ],
)
def test_a_name_is_followed_to_its_end(pairs: list[tuple[str, str]], name: str, expected: str) -> None:
    assert expected == aliases(*pairs).resolve(name).name


def test_a_chain_tells_its_steps() -> None:
    chain = aliases(("fast", "cheap"), ("c*", "openai/c*")).resolve("fast")
    assert [("fast", "cheap", "cheap"), ("c*", "openai/c*", "openai/cheap")] == [
        (step.from_, step.to, step.result) for step in chain.steps
    ]
    assert "openai/c*" == chain.pattern
    assert aliases().resolve("fast").pattern is None


@pytest.mark.parametrize(
    ("pairs", "place", "key", "message"),
    [
        ([("gpt-[4", "openai/x")], 0, "from", "`[` is never closed"),
        ([("fast", "openai/*")], 0, "to", "has 1 `*` where `fast` captures 0"),
        ([("a*b*", "openai/*")], 0, "to", "has 1 `*` where `a*b*` captures 2"),
        ([("{a*,b}", "openai/*")], 0, "to", "different numbers of `*`"),
        ([("fast", "x" * 257)], 0, "to", "too long"),
        ([("a", "a")], 0, "to", "`a` → `a`"),
        ([("z", "openai/x"), ("c", "a"), ("a", "b"), ("b", "c")], 1, "to", "`c` → `a` → `b` → `c`"),
        ([("into", "a"), ("b", "a"), ("a", "b")], 1, "to", "`b` → `a` → `b`"),
    ],
)
def test_bad_entries_are_refused(pairs: list[tuple[str, str]], place: int, key: str, message: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        aliases(*pairs)
    (fault,) = caught.value.faults
    assert ("model_aliases", place, key) == fault.path
    assert message in fault.message


def test_two_circles_are_two_faults() -> None:
    with pytest.raises(ConfigFaults) as caught:
        aliases(("a", "b"), ("b", "a"), ("c", "c"), ("d", "openai/x"))
    assert [0, 2] == [fault.path[1] for fault in caught.value.faults]


def test_an_alias_to_an_unknown_provider_is_a_fault(faults: Callable[..., tuple[Fault, ...]]) -> None:
    entries = [
        {"from": "fast", "to": "opnai/gpt-4o"},
        {"from": "gem-*", "to": "gemini/*"},
        {"from": "empty", "to": "openai/"},
        {"from": "fine", "to": "openai/gpt-4o"},
        {"from": "o/*/*", "to": "*/*"},
    ]
    told = faults({"model_aliases": entries})
    assert [0, 1, 2] == [fault.path[1] for fault in told]
    assert "unknown provider `opnai` in `opnai/gpt-4o`, and nothing serves that name: did you mean `openai`?" == (
        told[0].message
    )
    assert "unknown provider `gemini`" in told[1].message
    assert "names no model" in told[2].message


@pytest.mark.parametrize(
    "document",
    [
        {"providers": [{"name": "hf", "type": "openai", "models": ["meta-llama/*"]}]},
        {"routes": [{"name": "r", "match": {"model": "meta-llama/*"}, "targets": ["openai/x"]}]},
        {"routes": [{"name": "r", "targets": ["openai/x"]}]},
    ],
)
@pytest.mark.parametrize("entry", [{"from": "llama", "to": "meta-llama/l3"}, {"from": "l*", "to": "meta-llama/l*"}])
def test_an_alias_to_a_name_with_a_slash_is_fine_if_anything_takes_it(
    bench: Callable[..., object], document: dict[str, object], entry: dict[str, str]
) -> None:
    bench({**document, "model_aliases": [entry]})


def test_an_alias_may_lead_to_another_by_a_name_with_a_slash(bench: Callable[..., object]) -> None:
    bench(
        {"model_aliases": [{"from": "a", "to": "x/y"}, {"from": "x/*", "to": "openai/*"}, {"from": "b*", "to": "x/*"}]}
    )


def test_a_chain_of_twenty_thousand_is_refused_at_once() -> None:
    def refuse(count: int) -> None:
        with pytest.raises(ConfigFaults) as refused:
            aliases(*((f"a{number}", f"a{number + 1}") for number in range(count)))
        (fault,) = refused.value.faults
        assert ("model_aliases", count - MAX_STEPS - 1, "to") == fault.path
        assert f"more than {MAX_STEPS} aliases one after the other" in fault.message

    (short,) = least_seconds(lambda: refuse(1000))
    (long,) = least_seconds(lambda: refuse(20_000), rounds=1)
    # Twenty times as long, not four hundred.
    assert long < 120 * short


def test_a_chain_of_as_many_as_are_allowed_is_followed_to_its_end() -> None:
    chain = [(f"a{number}", f"a{number + 1}") for number in range(MAX_STEPS)]
    assert f"a{MAX_STEPS}" == aliases(*chain).resolve("a0").name
    assert f"a{MAX_STEPS}" == aliases(*reversed(chain)).resolve("a0").name


def test_a_circle_of_very_many_names_some_of_them() -> None:
    with pytest.raises(ConfigFaults) as refused:
        aliases(*((f"a{number}", f"a{(number + 1) % 1000}") for number in range(1000)))
    (fault,) = refused.value.faults
    assert len(fault.message) < 300


def test_a_name_goes_through_a_bounded_number_of_globs() -> None:
    found = aliases(*((f"a{number}-*", f"a{number + 1}-*") for number in range(MAX_STEPS + 50))).resolve("a0-x")
    assert MAX_STEPS == len(found.steps)
