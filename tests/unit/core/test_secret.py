"""A secret is shown to nobody, however it is rendered."""

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import msgspec
import pytest

from core.secret import Secret

VALUE = "hunter2-hunter2"


def secret() -> Secret:
    return Secret.literal(VALUE, "env:KEY")


RENDERINGS: dict[str, Callable[[Secret], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "f-string": lambda each: f"{each} {each!r} {each!s} {each:>40}",
    "percent": lambda each: "%s %r" % (each, each),  # noqa: UP031  what is tested
    "template": lambda each: "{} {!r} {:<40}".format(each, each, each),  # noqa: UP032  what is tested
    "in a list": lambda each: str([each, {"a": each}, (each,)]),
    "json": lambda each: json.dumps({"key": each}, default=str),
    "msgspec": lambda each: msgspec.json.encode({"key": each}, enc_hook=repr).decode(),
    "as a key": lambda each: str({each: 1}),
    "attributes": lambda each: " ".join(str(getattr(each, name)) for name in dir(each) if name == "label"),
}


@pytest.mark.parametrize("way", RENDERINGS)
def test_no_rendering_shows_the_value(way: str) -> None:
    shown = RENDERINGS[way](secret())
    assert VALUE not in shown
    assert "[secret]" in shown or "env:KEY" in shown


REFUSED: dict[str, Callable[[Secret], object]] = {
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "json": json.dumps,
    "msgspec": msgspec.json.encode,
    "vars": vars,
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_would_need_the_value_fails_without_showing_it(way: str) -> None:
    with pytest.raises(TypeError) as refused:
        REFUSED[way](secret())
    assert VALUE not in str(refused.value)


def test_a_traceback_does_not_show_the_value() -> None:
    kept = secret()
    try:
        raise ValueError(kept)
    except ValueError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        assert VALUE not in "".join(lines)


def test_a_log_line_does_not_show_the_value(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("t").info("key %s of %r", secret(), {"a": secret()}, extra={"key": secret()})
    assert VALUE not in caplog.text + repr(vars(caplog.records[0]))


def test_the_value_is_read_at_each_use() -> None:
    values = iter(["one", "two", "three"])
    kept = Secret(lambda: next(values), "file:k")
    assert ["one", "two"] == [kept.reveal(), kept.reveal()]
    assert kept.matches("three")


@pytest.mark.parametrize(
    ("candidate", "same"), [(VALUE, True), (VALUE + " ", False), ("", False), ("ä", False), ("\ud800", False)]
)
def test_values_are_compared_by_matches_alone(candidate: str, same: bool) -> None:
    assert same == secret().matches(candidate)
    assert secret() != secret()
    value: object = VALUE
    assert value != secret()


def test_a_value_of_any_text_is_compared() -> None:
    assert Secret.literal("sch\u00e4tz\ud800").matches("sch\u00e4tz\ud800")


def test_handles_are_told_apart_by_identity() -> None:
    one, other = secret(), secret()
    assert (1, 2) == (len({one, one}), len({one, other}))
    assert "literal" == Secret.literal("x").label
