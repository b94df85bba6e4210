"""`./sluice explain`: the way of one request through the configuration, for people or as JSON."""

import argparse
import re

import msgspec

from config.faults import ConfigFaults, Fault, did_you_mean
from core.globs import GlobSet
from core.headers import Headers
from gateway.build import Generation
from proxy import endpoints
from routing.explain import Dialled, Report
from routing.plan import RouteQuery

_QUERY_VALUE = re.compile(r"([?&][^=&]*=)[^&]*")


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
    report = make_report(generation, query, _models_of(generation, query.token))
    found = report.explanation.refusal is None and report.allowed is not False
    return (msgspec.json.encode(report).decode() if options.json else render(report)), found


def make_report(
    generation: Generation, query: RouteQuery, models: tuple[str, ...] | None, now: float | None = None
) -> Report:
    """The whole answer for ``query``.

    Args:
        models: globs of the token; None: without one.
        now: monotonic seconds, to show what cools.
    """
    explanation = generation.plane.router.explain(query, now)
    targets = [target for group in explanation.groups for target in group.targets]
    path = endpoints.upstream_path(query.path)
    upstream = tuple(
        Dialled(
            target.provider,
            target.model,
            masked(generation.plane.providers[target.provider].adapter.url(path)),
            generation.plane.pools.names(target.provider, target.model, target.prefix),
        )
        for target in targets
    )
    allowed = None if models is None or query.model is None else GlobSet(models).matches(query.model)
    return Report(explanation, allowed, upstream, generation.revision)


def masked(url: str) -> str:
    """``url`` with every value of its query hidden: it is of the configuration, and may be a key."""
    return _QUERY_VALUE.sub(r"\1…", url)


def declared_models(generation: Generation, token: str) -> tuple[str, ...] | None:
    """The `models` of a token of the file; None: it has none of that name."""
    return next((each.models for each in generation.config.tokens if each.name == token), None)


def _models_of(generation: Generation, token: str | None) -> tuple[str, ...] | None:
    if token is None:
        return None
    models = declared_models(generation, token)
    if models is None:
        known = [each.name for each in generation.config.tokens]
        raise ConfigFaults([Fault((), f"no token is named `{token}`{did_you_mean(token, known)}")])
    return models


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
            keys = ", ".join(dialled.credentials) or "none"
            lines.append(f"  → {name}{share}  {dialled.url}  credentials: {keys}")
    return "\n".join(lines)
