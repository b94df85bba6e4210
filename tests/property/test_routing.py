"""Every name resolves to a plan or to an error of the caller's, and no set of aliases makes it go on for ever."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from config.faults import ConfigFaults, Fault
from config.schema import Config, ModelAlias
from core.errors import CallerError
from core.headers import Headers
from credentials.pool import Pools
from routing.aliases import Aliases
from routing.cooldown import Cooldowns
from routing.plan import RouteQuery
from routing.router import Router
from routing.rules import RuleSet

parts = st.sampled_from(["a", "b", "*", "?", "p/", "q/", "/", "-", "{a,b}", "[ab]", "x"])
globs = st.lists(parts, min_size=1, max_size=4).map("".join)
names = st.lists(st.sampled_from(["a", "b", "p/", "q/", "/", "-", "x", "*", "é"]), max_size=5).map("".join)
plain = st.sampled_from(["p/a", "q/b", "a", "b", "ab", "x/a", "p/-"])
# Half of them fit: a name, or as many stars on both sides.
aliases = st.lists(
    st.fixed_dictionaries({"from": globs, "to": plain | globs})
    | st.sampled_from([{"from": "a*", "to": "b*"}, {"from": "b*", "to": "a*"}, {"from": "*-*", "to": "p/*/*"}]),
    max_size=4,
    unique_by=lambda entry: entry["from"],
)
matches = st.fixed_dictionaries(
    {},
    optional={
        "model": globs | st.lists(globs, min_size=1, max_size=3),
        "requested_model": globs,
        "token": globs,
        "path": st.sampled_from(["/v1/*", "/v1/files*", "*"]),
        "headers": st.dictionaries(st.sampled_from(["x-a", "X-B"]), globs, max_size=2),
        "stream": st.booleans(),
    },
)
targets = st.sampled_from(["p/a", "q/b", "p/*", "q/*", {"to": "p/x", "weight": 3}])
groups = st.lists(targets, min_size=1, max_size=3)
routes = st.lists(
    st.fixed_dictionaries(
        {
            "match": matches,
            "targets": groups,
            "strategy": st.sampled_from(["first", "weighted", "round_robin", "random"]),
        },
        optional={"fallbacks": st.lists(groups, max_size=2)},
    ),
    max_size=5,
)
documents = st.fixed_dictionaries(
    {
        "providers": st.lists(globs, max_size=3).map(
            lambda models: [{"name": "p", "type": "openai", "models": models}, {"name": "q", "type": "openai"}]
        ),
        "model_aliases": aliases,
        "routes": routes.map(lambda entries: [{"name": f"r{n}", **entry} for n, entry in enumerate(entries)]),
    }
)
queries = st.builds(
    RouteQuery,
    st.none() | names | st.just("x" * 1025),
    path=st.sampled_from(["/v1/chat/completions", "/v1/files/1"]),
    token=st.none() | names,
    headers=st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), names), max_size=3).map(Headers),
    stream=st.booleans(),
    provider=st.none() | st.sampled_from(["p", "q", "z"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(globs, globs), max_size=8), st.lists(names, min_size=1, max_size=4))
def test_a_chain_of_aliases_ends_and_applies_each_entry_once(pairs: list[tuple[str, str]], spelled: list[str]) -> None:
    entries = {from_: ModelAlias(from_=from_, to=to) for from_, to in pairs}
    try:
        made = Aliases(list(entries.values()), ("p", "q"))
    except ConfigFaults:
        return
    for name in spelled:
        chain = made.resolve(name)
        applied = [step.from_ for step in chain.steps]
        assert len(applied) == len(set(applied))
        assert chain.name == (chain.steps[-1].result if chain.steps else name)


@settings(max_examples=200, deadline=None)
@given(documents, st.lists(queries, min_size=1, max_size=5))
def test_every_request_resolves_or_is_the_callers_error(document: dict[str, Any], asked: list[RouteQuery]) -> None:
    config = msgspec.convert(document, Config)
    cooldowns = Cooldowns()
    pools = Pools(config.providers, cooldowns)
    faults: tuple[Fault, ...] = ()
    try:
        router = Router(config, cooldowns, pools, lambda: 0.5)
    except ConfigFaults as caught:
        faults = caught.faults
    if faults:
        assert all(fault.path and fault.message for fault in faults)
        return
    assert len(router.models()) == len({model.id for model in router.models()})
    for query in asked:
        explained = router.explain(query, now=1.0)
        code = None
        try:
            plan = router.resolve(query)
        except CallerError as refusal:
            code = refusal.client_code
        assert code == (explained.refusal.code if explained.refusal else None)
        if code is not None:
            continue
        assert (plan.route, plan.step) == (explained.route, explained.step)
        every = [plan.first, *plan.fallbacks.error, *plan.fallbacks.context, *plan.fallbacks.content]
        for group in every:
            assert group.targets
            for target in group.targets:
                assert target.provider in plan.timeouts
                assert target.model != ""
                assert (target.model is None) == (query.model is None)
                assert target.label
        attempt = router.begin(plan, maybe_delivered=True).next(1.0)
        assert attempt.target in plan.first.targets


@settings(max_examples=200, deadline=None)
@given(documents, queries, names)
def test_the_index_finds_the_rule_that_asking_each_in_turn_finds(
    document: dict[str, Any], query: RouteQuery, model: str
) -> None:
    document = {**document, "model_aliases": []}
    config = msgspec.convert(document, Config)
    cooldowns = Cooldowns()
    try:
        rules: RuleSet = Router(config, cooldowns, Pools(config.providers, cooldowns), lambda: 0.5).rules
    except ConfigFaults:
        return
    final = None if query.model is None else model
    expected = next((place for place, rule in enumerate(rules.rules) if rule.mismatch(query, final) is None), None)
    assert expected == rules.first(query, final)
    assert (len(rules.rules) if expected is None else expected) == len(list(rules.losses(query, final)))
