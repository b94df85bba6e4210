"""Limits as somebody writes them, in the file or through the API: what they say, and what is wrong with them."""

from collections.abc import Iterable, Mapping
from typing import Any

from access.quotas.limits import BadTerms, Terms, parse_terms
from config.faults import Fault, Path


def read_limits(path: Path, entries: Iterable[Mapping[str, Any]]) -> tuple[tuple[Terms, ...], list[Fault]]:
    """The terms of the ``entries`` and, with ``path`` before their places, the faults of those that have none."""
    terms: list[Terms] = []
    faults: list[Fault] = []
    for position, entry in enumerate(entries):
        try:
            terms.append(parse_terms(entry))
        except BadTerms as error:
            place = (*path, position) if error.member is None else (*path, position, error.member)
            faults.append(Fault(place, str(error)))
    return tuple(terms), faults
