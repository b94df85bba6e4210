"""`./sluice explain`: the way of one request through the configuration, for people or as JSON."""

import argparse
import re

import msgspec

from config.faults import ConfigFaults, Fault, did_you_mean
from core.globs import GlobSet
from core.headers import Headers
from gateway.build import Generation
from proxy import endpoints
from routing.explain import Explanation
from routing.plan import RouteQuery

_QUERY_VALUE = re.compile(r"([?&][^=&]*=)[^&]*")


class Dialled(msgspec.Struct, frozen=True):
    """A target and what would be called for it."""

    provider: str
    model: str | None
    url: str
    credentials: tuple[str, ...]
    """Names alone; a secret is never shown."""


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    explanation: Explanation
    allowed: bool | None
    """Whether the token's `models` let the name through; None without a token or a model."""
    upstream: tuple[Dialled, ...]
    revision: str


def explain_command(generation: Generation, options: argparse.Namespace) -> tuple[str, bool]:
    """The text to print, and whether the request would go anywhere.

    Raises:
        ConfigFaults: the command line names a token or writes a header that does not exist.
    """
    path = endpoints.canonical_path(options.path)
    query = RouteQuery(
        model=options.model,
        path=path,
        token=options.token,
        headers=_headers(options.header),
        stream=options.stream,
        provider=_headers(options.header).get("x-sluice-provider"),
    )
    report = make_report(generation, query)
    found = report.explanation.refusal is None and report.allowed is not False
    return (msgspec.json.encode(report).decode() if options.json else render(report)), found


def make_report(generation: Generation, query: RouteQuery) -> Report:
    """The whole answer for ``query``."""
    explanation = generation.plane.router.explain(query)
    targets = [target for group in explanation.groups for target in group.targets]
    path = endpoints.upstream_path(query.path)
    upstream = tuple(
        Dialled(
            target.provider,
            target.model,
            masked(generation.plane.providers[target.provider].adapter.url(path)),
            generation.plane.pools.names(target.provider),
        )
        for target in targets
    )
    return Report(explanation, _allowed(generation, query), upstream, generation.revision)


def masked(url: str) -> str:
    """``url`` with every value of its query hidden: it is of the configuration, and may be a key."""
    return _QUERY_VALUE.sub(r"\1…", url)


def _allowed(generation: Generation, query: RouteQuery) -> bool | None:
    if query.token is None:
        return None
    tokens = {token.name: token for token in generation.config.tokens}
    token = tokens.get(query.token)
    if token is None:
        raise ConfigFaults([Fault((), f"no token is named `{query.token}`{did_you_mean(query.token, tokens)}")])
    if query.model is None:
        return None
    return GlobSet(token.models).matches(query.model)


def _headers(given: list[str]) -> Headers:
    pairs = []
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigFaults([Fault((), f"--header {text}: write it as NAME=VALUE")])
        pairs.append((name.strip(), value.strip()))
    return Headers.parse(pairs)


def render(report: Report) -> str:
    """The report as lines for a terminal."""
    explanation = report.explanation
    lines = [f"request     {explanation.requested_model or '(no model)'}"]
    if report.allowed is False:
        lines.append("token       may not ask for this name: its `models` do not match")
    lines += [f"alias       {step.from_} → {step.to}: {step.result}" for step in explanation.aliases]
    for loss in explanation.lost:
        wanted = " or ".join(loss.wanted) or "nothing"
        value = " and ".join(loss.value) or "nothing"
        lines.append(f"lost        route {loss.route}: {loss.field} wants {wanted}, the request has {value}")
    if explanation.refusal is not None:
        refusal = explanation.refusal
        return "\n".join([*lines, f"refused     {refusal.status} {refusal.code}: {refusal.message}"])
    lines.append(f"won         {f'route {explanation.route}' if explanation.route else explanation.step}")
    upstream = iter(report.upstream)
    for number, group in enumerate(explanation.groups):
        title = (
            f"{group.kind} ({group.strategy})"
            if number == 0
            else f"fallback {number} for {group.kind} ({group.strategy})"
        )
        lines.append(title)
        for target in group.targets:
            dialled = next(upstream)
            name = f"{target.provider}/{target.model}" if target.model else target.provider
            share = f" weight {target.weight}" if group.strategy == "weighted" else ""
            keys = ", ".join(dialled.credentials)
            lines.append(f"  → {name}{share}  {dialled.url}  credentials: {keys}")
    return "\n".join(lines)
