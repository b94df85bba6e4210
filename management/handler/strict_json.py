"""JSON without a second reading: what parsers read differently, or choke on, is refused (RFC 8259; RFC 7493).

msgspec refuses most of it by itself: text that is no UTF-8, lone surrogates, ``NaN``, numbers beyond all bounds, commas
too many, bytes after the end. It takes the last of two members of one name, though, as others take the first, and
nests as deep as Python's stack allows. Both are looked at here, in time that grows with the body alone.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NoReturn

import msgspec

MAX_DEPTH: Final = 64
"""Objects and arrays within each other. No body of ours has ten."""
_SHOWN_CHARACTERS: Final = 64

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_ALL_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class NotStrict(ValueError):
    """The text is no JSON, or no strict one; the message says why."""


def require_strict(body: bytes) -> None:
    """
    Raises:
        NotStrict: it is not JSON, nests too deep, or an object has two members of one name.
    """
    try:
        msgspec.json.decode(body)
    except RecursionError:
        _too_deep()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotStrict(str(error)) from error
    # Brackets that are part of strings are counted too at first: most bodies have few of either.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and max(_depths(body)) > MAX_DEPTH:
        _too_deep()
    if body.count(b":") > 1:
        json.loads(body, object_pairs_hook=_members)


def _depths(body: bytes) -> Iterator[int]:
    brackets = _STRING.sub(b"", body).translate(None, _ALL_BUT_BRACKETS)
    return accumulate(map(_STEPS.__getitem__, brackets), initial=0)


def _members(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise NotStrict(f"an object has the member `{name[:_SHOWN_CHARACTERS]}` twice")
        seen.add(name)


def _too_deep() -> NoReturn:
    raise NotStrict(f"objects and arrays nest deeper than {MAX_DEPTH}")
