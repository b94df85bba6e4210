"""Bodies that parsers read differently, or choke on: refused, and quickly."""

import contextlib
import gc
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from management.handler.strict_json import MAX_DEPTH, NotStrict, require_strict
from tests.cost import least_seconds

MIB = 1024 * 1024


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' \t\r\n[1, -0, 1.5e3, true, false, null, "", "\\u00e9\\ud83d\\ude00"] \n',
        b'"{\\"a\\": 1, \\"a\\": 2}"',
        b'{"a": {"a": {"a": 1}}, "A": 2, "b": [{"a": 1}, {"a": 1}]}',
        nested(MAX_DEPTH),
        b'["' + b"[" * 1000 + b'", "\\"' + b"{" * 1000 + b'"]',
        b'{"k": "\\\\", "[": "\\\\\\"' + b"[" * 1000 + b'"}',
        '{"é": "\u2028"}'.encode(),
    ],
)
def test_json_is_taken(body: bytes) -> None:
    require_strict(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"{}{}", "trailing"),
        (b"[1,]", "comma"),
        (b'{"a": 1,}', "comma"),
        (b"{'a': 1}", "malformed"),
        (b"{a: 1}", "malformed"),
        (b"// no\n{}", "malformed"),
        (b"NaN", "malformed"),
        (b"[-Infinity]", "malformed"),
        (b"01", "malformed"),
        (b"+1", "malformed"),
        (b"1e999", "out of range"),
        (b"1" * 5000, "out of range"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b"{\x00}", "malformed"),
        (b'"\x01"', "malformed"),
        (b'"\xff"', "utf-8"),
        (b'"\xc0\xaf"', "utf-8"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b'"\\ud800"', "truncated"),
        (b'"\\udc00 "', "surrogate"),
        (b'"\\ud800\\u0041"', "surrogate"),
        (b'"\\x41"', "escape"),
        (b'{"a": 1, "a": 2}', "`a` twice"),
        (b'{"a": 1, "\\u0061": 1}', "`a` twice"),
        (b'{"b": [{"": 0, "": 0}]}', "`` twice"),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 100, b"k" * 100), f"`{'k' * 64}` twice"),
        (nested(MAX_DEPTH + 1), "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 65, "truncated|deeper"),
    ],
)
def test_what_is_not_strict_is_refused_with_the_reason(body: bytes, words: str) -> None:
    with pytest.raises(NotStrict, match=words):
        require_strict(body)


def filled(unit: bytes, begin: bytes = b"[", end: bytes = b"0]") -> Callable[[int], bytes]:
    return lambda size: begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


def object_of_many(size: int) -> bytes:
    count = size * 80_000 // MIB
    return b"{" + b",".join(b'"%d":1' % number for number in range(count)) + b',"%d":1}' % (count - 1)


@pytest.mark.parametrize(
    "body",
    [
        filled(b"[", end=b""),
        filled(b'{"a":', b"", b""),
        filled(b'\\"', b'"', b""),
        filled(b"[],"),
        filled(b"{},"),
        filled(b'"",'),
        filled(b'{"a":1,"b":2},'),
        filled(b"1" * 4000 + b","),
        filled(b'\\"', b'["', b'",0]'),
        filled(b"[{", b'["', b'",0]'),
        object_of_many,
    ],
    ids=lambda body: str(body(64)[:16]),
)
def test_no_body_of_a_mebibyte_takes_long(body: Callable[[int], bytes]) -> None:
    def require(size: int) -> Callable[[], None]:
        sent = body(size)

        def run() -> None:
            with contextlib.suppress(NotStrict):
                require_strict(sent)

        return run

    # What the collector makes of a few hundred thousand lists depends on all that the tests have left.
    gc.disable()
    try:
        (small,) = least_seconds(require(MIB // 32), rounds=3)
        (large,) = least_seconds(require(MIB), rounds=2)
    finally:
        gc.enable()
    # Thirty-two times as much, not a thousand times.
    assert large < 250 * small


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(VALUES)
def test_whatever_is_written_by_a_proper_writer_is_taken(value: Any) -> None:
    require_strict(msgspec.json.encode(value))
    require_strict(json.dumps(value).encode())


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:\\u0dD8 1eEtruenl-.a', max_size=40).map(str.encode))
def test_whatever_is_taken_reads_alike_by_two_readers(body: bytes) -> None:
    try:
        require_strict(body)
    except NotStrict:
        return
    assert msgspec.json.decode(body) == json.loads(body)
