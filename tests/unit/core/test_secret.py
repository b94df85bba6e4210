"""A secret is shown to nobody, however it is rendered."""

import asyncio
import copy
import dataclasses
import faulthandler
import gc
import inspect
import json
import logging
import marshal
import pickle
import pprint
import reprlib
import string
import sys
import threading
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import structlog
import yaml
from hypothesis.vendor import pretty
from ruamel.yaml import YAML
from ruamel.yaml.representer import RepresenterError

from config.references import EnvironmentResolver, FileResolver, References, parse_template
from config.secret_files import SecretFiles
from core.secret import Secret, values_in_use
from tests.cost import least_seconds
from tests.planted import labels, place_of_secrets, planted

VALUE = planted("value")
FALLBACK = planted("fallback")


@pytest.fixture(params=["literal", "environment", "file", "default", "several"])
def secret(request: pytest.FixtureRequest, tmp_path: Path) -> Secret:
    """A handle of each kind that a document makes."""
    place_of_secrets(tmp_path / "key").write_text(VALUE)
    references = References({"env": EnvironmentResolver({"KEY": VALUE}), "file": FileResolver(SecretFiles(), tmp_path)})
    made = {
        "environment": "${env:KEY}",
        "file": f"${{file:key:-{FALLBACK}}}",
        "default": f"${{env:ABSENT:-{FALLBACK}}}",
        "several": f"{VALUE} ${{env:KEY:-{FALLBACK}}}",
    }
    if request.param == "literal":
        return Secret.literal(VALUE, "env:KEY")
    return references.secret(parse_template(made[request.param]))


@dataclasses.dataclass
class Plain:
    key: object


class Frozen(msgspec.Struct, frozen=True):
    key: object


def through_an_exception(render: Callable[[BaseException], str]) -> Callable[[Secret], str]:
    """What ``render`` shows of an exception that passes through frames with the handle in their locals."""

    def shown(secret: Secret) -> str:
        def inner(key: Secret, *others: Secret, **named: Secret) -> None:
            kept = {"key": [key], "reveal": key.reveal}
            raise ValueError(key, kept)

        try:
            inner(secret, secret, again=secret)
        except ValueError as error:
            return render(error)
        return ""

    return shown


def standard(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def as_structlog_does(error: BaseException) -> str:
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    info = (type(error), error, error.__traceback__)
    return json.dumps(transform(info), default=repr)


def as_rich_does(error: BaseException) -> str:
    rich = pytest.importorskip("rich.traceback")
    console = pytest.importorskip("rich.console").Console(file=None, width=300)
    with console.capture() as captured:
        console.print(rich.Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    return str(captured.get())


def as_the_logs_do(secret: Secret) -> str:
    lines: list[str] = []
    render = structlog.dev.ConsoleRenderer(colors=False)
    lines.append(str(render(None, "info", {"event": secret, "key": secret, "headers": [("x-api-key", secret)]})))
    lines.append(str(structlog.processors.JSONRenderer()(None, "info", {"event": "asked", "key": secret})))
    lines.append(str(structlog.processors.KeyValueRenderer()(None, "info", {"event": "asked", "key": secret})))
    lines.append(str(structlog.processors.LogfmtRenderer()(None, "info", {"event": "asked", "key": secret})))
    return " ".join(lines)


def as_a_task_does(secret: Secret) -> str:
    async def use(key: Secret) -> str:
        task = asyncio.current_task()
        return f"{task!r} {task.get_stack() if task else None!r} {key}"

    return asyncio.run(use(secret))


def as_a_thread_does(secret: Secret) -> str:
    thread = threading.Thread(target=print, args=(secret,), kwargs={"end": secret}, name=str(secret))
    return f"{thread!r} {vars(thread)!r}"


RENDERINGS: dict[str, Callable[[Secret], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "f-string": lambda each: f"{each} {each!r} {each!s} {each!a} {each:>40} {each=}",
    "percent": lambda each: "%s %r %a" % (each, each, each),  # noqa: UP031  what is tested
    "template": lambda each: "{} {!r} {:<40}".format(each, each, each),  # noqa: UP032  what is tested
    "string.Template": lambda each: string.Template("$key ${key}").substitute(key=each),
    "in containers": lambda each: str([each, {"a": each}, (each,), {each}, frozenset([each])]),
    "as a key": lambda each: str({each: 1}),
    "pprint": lambda each: pprint.pformat({"a": [each], "b": {each}}, width=1),
    "reprlib": lambda each: reprlib.repr([each]),
    "hypothesis": lambda each: pretty.pretty({"key": [each]}),
    "dataclass": lambda each: repr(Plain(each)),
    "struct": lambda each: repr(Frozen(each)),
    "struct as a dict": lambda each: str(msgspec.structs.asdict(Frozen(each))),
    "struct as a tuple": lambda each: str(msgspec.structs.astuple(Frozen(each))),
    "namespace": lambda each: repr(types.SimpleNamespace(key=each)),
    "an object's dict": lambda each: str(vars(Plain(each))),
    "locals": lambda key: str(locals()),
    "json": lambda each: json.dumps({"key": each}, default=str),
    "msgspec": lambda each: msgspec.json.encode({"key": each}, enc_hook=repr).decode(),
    "logs": as_the_logs_do,
    "exception": lambda each: f"{ValueError(each)} {KeyError(each)!r} {OSError(1, each)}",
    "traceback": through_an_exception(lambda error: "".join(traceback.format_exception(error))),
    "traceback with locals": through_an_exception(standard),
    "traceback of structlog": through_an_exception(as_structlog_does),
    "traceback of rich": through_an_exception(as_rich_does),
    "task": as_a_task_does,
    "thread": as_a_thread_does,
}


@pytest.mark.parametrize("way", RENDERINGS)
def test_no_rendering_shows_the_value(secret: Secret, way: str) -> None:
    shown = RENDERINGS[way](secret)
    assert set() == labels(shown)
    assert "[secret]" in shown or secret.label in shown or repr(secret.label)[1:-1] in shown


INSIDES: dict[str, Callable[[Secret], object]] = {
    "what has a name": lambda each: [getattr(each, name) for name in dir(each)],
    "members": inspect.getmembers,
    "slots": lambda each: [getattr(each, name) for name in Secret.__slots__],
    "state": lambda each: each.__getstate__(),
    "the reader": lambda each: each.reveal,
    "the reader's closure": lambda each: getattr(each.reveal, "__closure__", None),
    "the reader's defaults": lambda each: [getattr(each.reveal, n, None) for n in ("__defaults__", "__kwdefaults__")],
    "the reader's dict": lambda each: getattr(each.reveal, "__dict__", None),
    "the reader's signature": lambda each: inspect.signature(each.reveal),
    "what the garbage collector sees": gc.get_referents,
    "a bound method": lambda each: each.matches,
}


@pytest.mark.parametrize("way", INSIDES)
def test_no_part_of_a_handle_shows_the_value(secret: Secret, way: str) -> None:
    assert set() == labels(repr(INSIDES[way](secret)))


REFUSED: dict[str, Callable[[Secret], object]] = {
    "pickle": pickle.dumps,
    "old pickle": lambda each: pickle.dumps(each, 0),
    "pickle inside": lambda each: pickle.dumps({"key": [Plain(each)]}),
    "marshal": lambda each: marshal.dumps(each),  # type: ignore[arg-type]  # noqa: PLW0108  for the type
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy inside": lambda each: copy.deepcopy({"key": [each]}),
    "dataclass as a dict": lambda each: dataclasses.asdict(Plain(each)),
    "dataclass as a tuple": lambda each: dataclasses.astuple(Plain(each)),
    "json": json.dumps,
    "json of its variables": lambda each: json.dumps(each, default=vars),
    "msgspec's json": msgspec.json.encode,
    "msgspec's msgpack": lambda each: msgspec.msgpack.encode(Frozen(each)),
    "msgspec's builtins": lambda each: msgspec.to_builtins(Frozen(each)),
    "msgspec's conversion": lambda each: msgspec.convert({"key": each}, dict[str, str]),
    "yaml": yaml.dump,
    "ruamel": lambda each: YAML().dump({"key": each}, sys.stdout),
    "vars": vars,
    "dict": lambda each: each.__dict__,
    "adding": lambda each: "Bearer " + each,  # type: ignore[operator]
    "joining": lambda each: str.join(" ", [each]),  # type: ignore[list-item]
    "iterating": list,  # type: ignore[dict-item]
    "bytes": bytes,  # type: ignore[dict-item]
    "a number's format": lambda each: f"{each:d}",
    "ordering": lambda each: sorted([each, each]),  # type: ignore[type-var]
    "changing": lambda each: setattr(each, "value", 1),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_would_need_the_value_fails_without_showing_it(secret: Secret, way: str) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError, RepresenterError)) as refused:
        REFUSED[way](secret)
    assert set() == labels(f"{refused.value} {refused.value!r} {standard(refused.value)}")


def test_a_dump_of_all_threads_does_not_show_the_value(tmp_path: Path) -> None:
    with (tmp_path / "dump").open("w") as dump:

        def read() -> str:
            value = VALUE
            faulthandler.dump_traceback(dump)
            return value

        assert VALUE == Secret(read, "env:KEY").reveal()
    assert "in read" in (tmp_path / "dump").read_text()
    assert set() == labels((tmp_path / "dump").read_bytes())


def test_a_log_line_does_not_show_the_value(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("t").info("key %s of %r", secret, {"a": secret}, extra={"key": secret})
    assert set() == labels(caplog.text + repr(vars(caplog.records[0])))


def test_the_value_is_read_at_each_use() -> None:
    values = iter(["one", "two", "three"])
    kept = Secret(lambda: next(values), "file:k")
    assert ["one", "two"] == [kept.reveal(), kept.reveal()]
    assert kept.matches("three")


@pytest.mark.parametrize(
    ("candidate", "same"), [(VALUE, True), (VALUE + " ", False), ("", False), ("ä", False), ("\ud800", False)]
)
def test_values_are_compared_by_matches_alone(candidate: str, same: bool) -> None:
    secret = Secret.literal(VALUE)
    assert same == secret.matches(candidate)
    assert secret != Secret.literal(VALUE)
    value: object = VALUE
    assert value != secret


def test_a_value_of_any_text_is_compared() -> None:
    assert Secret.literal("sch\u00e4tz\ud800").matches("sch\u00e4tz\ud800")


def test_handles_are_told_apart_by_identity() -> None:
    one, other = Secret.literal(VALUE), Secret.literal(VALUE)
    assert (1, 2) == (len({one, one}), len({one, other}))
    assert "literal" == Secret.literal("x").label


def test_revealing_costs_little_more_than_the_reader() -> None:
    """The reader takes some 20 ns; a lock, a look-up or a log on the way would be ten times that, and on each request."""

    def read() -> str:
        return VALUE

    secret = Secret(read, "env:KEY")

    def call() -> None:
        for _ in range(20_000):
            read()

    def reveal() -> None:
        for _ in range(20_000):
            secret.reveal()

    alone, revealed = least_seconds(call, reveal, rounds=20)
    assert revealed < 5 * alone


def test_the_values_in_use_are_those_of_the_handles_that_somebody_holds() -> None:
    mine = {planted("one"), planted("two")}
    held = [Secret.literal(each) for each in sorted(mine)]
    assert mine <= set(values_in_use())
    held.pop()
    assert planted("two") not in set(values_in_use())
    del held[:]
    assert not mine & set(values_in_use())


def test_a_value_that_changes_is_given_as_it_is_now() -> None:
    values = [planted("one")]
    secret = Secret(lambda: values[0], "file:k")
    assert planted("one") in set(values_in_use())
    values[0] = planted("two")
    assert {planted("two")} == {planted("one"), secret.reveal()} & set(values_in_use())


def test_a_value_that_cannot_be_had_is_left_out_of_the_values_in_use() -> None:
    def fail() -> str:
        raise KeyError("no such file")

    broken, held = Secret(fail, "file:k"), Secret.literal(VALUE)
    assert VALUE in set(values_in_use())
    with pytest.raises(KeyError):
        broken.reveal()
    assert held.matches(VALUE)


def test_handles_may_come_and_go_in_other_threads_while_values_are_asked_for() -> None:
    ended = threading.Event()

    def make() -> None:
        while not ended.is_set():
            for held in [[Secret.literal("value")] for _ in range(100)]:
                held.clear()

    makers = [threading.Thread(target=make) for _ in range(2)]
    for maker in makers:
        maker.start()
    try:
        for _ in range(200):
            list(values_in_use())
    finally:
        ended.set()
        for maker in makers:
            maker.join()
