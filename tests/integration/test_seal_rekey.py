"""`./sluice seal` and `./sluice rekey` as commands: what they print, and what becomes of the files."""

import base64
import os
import pty
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hvac
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import gateway.sealing
from config.document import Value, parse
from config.master_key import VARIABLE, parse_keys
from config.references import Reference, ReferenceFault, parse_template
from config.sealing import CONFIG, VAULT_VALUES, KeyRing
from config.vault.kept import KeptValues
from tests.gateway_process import ADMIN_KEY_HASH, Gateway, command, environment, until
from tests.planted import labels, place_of_secrets, planted, planted_key
from tests.vault_stand_in import vault_stand_in

SWORDFISH, MARLIN = planted("sealed-one"), planted("sealed-two")
OLD_KEY, NEW_KEY, LOST_KEY = (f"{name}:{planted_key(f'{name}-key').hex()}" for name in ("old", "new", "lost"))
OLD, NEW, LOST = (KeyRing(parse_keys(key)) for key in (OLD_KEY, NEW_KEY, LOST_KEY))
BOTH = KeyRing(parse_keys(f"{NEW_KEY} {OLD_KEY}"))
BOTH_KEYS = {VARIABLE: f"{NEW_KEY} {OLD_KEY}"}

_REFERENCE = re.compile(rb"\$\{sealed:(old|new):([A-Za-z0-9_-]+)")


def sealed(plain: str, keys: KeyRing = OLD) -> str:
    return f"${{sealed:{keys.seal(plain.encode(), CONFIG)}}}"


def key_file(path: Path, text: str) -> None:
    place_of_secrets(path).write_text(text)
    path.chmod(0o600)


def opened(data: bytes) -> tuple[bytes, list[str]]:
    """``data`` with what was sealed in the place of the ids and texts, and the ids."""
    ids = []

    def show(match: re.Match[bytes]) -> bytes:
        ids.append(match[1].decode())
        return b"${sealed:" + BOTH.open(match[1].decode(), match[2].decode(), CONFIG)

    return _REFERENCE.sub(show, data), ids


def run(
    *arguments: str | Path, cwd: Path, stdin: bytes = b"", extra: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(extra), input=stdin, capture_output=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def rekey(place: Path, extra: Mapping[str, str] | None = None) -> tuple[int, list[str], list[str]]:
    status, out, err = run("rekey", "-c", "config.yaml", cwd=place, extra=BOTH_KEYS if extra is None else extra)
    return status, out.splitlines(), err.splitlines()


# seal


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (SWORDFISH, SWORDFISH),
        (f"{SWORDFISH}\n", SWORDFISH),
        (f"{SWORDFISH}\r\n", SWORDFISH),
        (f"{SWORDFISH}\n\n", f"{SWORDFISH}\n"),
        (f" {SWORDFISH}\n{MARLIN} ", f" {SWORDFISH}\n{MARLIN} "),
        (f"{SWORDFISH} \u00fc \U0001f420", f"{SWORDFISH} \u00fc \U0001f420"),
    ],
    ids=range(6),
)
def test_seal_prints_the_reference_and_nothing_else(tmp_path: Path, given: str, kept: str) -> None:
    status, out, err = run("seal", cwd=tmp_path, stdin=given.encode(), extra=BOTH_KEYS)
    assert (0, "") == (status, err)
    match = re.fullmatch(r"\$\{sealed:new:([A-Za-z0-9_-]+)\}\n", out)
    assert match
    assert kept == NEW.open("new", match[1], CONFIG).decode()
    assert [] == list(tmp_path.iterdir())


def test_seal_gives_another_text_each_time(tmp_path: Path) -> None:
    texts = {run("seal", cwd=tmp_path, stdin=SWORDFISH.encode(), extra=BOTH_KEYS)[1] for _ in range(2)}
    assert 2 == len(texts)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "nothing to seal"),
        (b"\n", "nothing to seal"),
        (SWORDFISH.encode() + b"\xff", "UTF-8"),
        (b"x" * (1 << 20) + b"x", "larger"),
    ],
)
def test_seal_refuses_what_is_no_secret_and_makes_no_key_for_it(tmp_path: Path, given: bytes, words: str) -> None:
    status, out, err = run("seal", cwd=tmp_path, stdin=given)
    assert (1, "") == (status, out)
    assert re.fullmatch(rf"sluice: .*{words}.*\n", err)
    assert [] == list(tmp_path.iterdir())


def test_seal_makes_a_key_once_beside_the_configuration_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "config.yaml").write_text("secrets: {directory: own}\n")
    first = run("seal", "-c", "etc/config.yaml", cwd=tmp_path, stdin=SWORDFISH.encode())
    second = run("seal", "-c", "etc/config.yaml", cwd=tmp_path, stdin=SWORDFISH.encode())
    assert (0, 0, "") == (first[0], second[0], second[2])
    assert "made a master key, etc/own/master.key: keep a copy elsewhere" in first[2]
    path = tmp_path / "etc" / "own" / "master.key"
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    keys = KeyRing(parse_keys(path.read_text()))
    for _, out, _ in (first, second):
        key_id, _, text = out.strip().removeprefix("${sealed:").removesuffix("}").partition(":")
        assert SWORDFISH.encode() == keys.open(key_id, text, CONFIG)


def test_seal_needs_no_configuration_but_one_that_is_named(tmp_path: Path) -> None:
    assert 0 == run("seal", cwd=tmp_path, stdin=SWORDFISH.encode())[0]
    assert (tmp_path / "data" / "master.key").exists()
    status, out, err = run("seal", "-c", "absent.yaml", cwd=tmp_path, stdin=SWORDFISH.encode())
    assert (1, "") == (status, out)
    assert "absent.yaml:1:1: cannot be read: there is no such file\n" == err


def test_seal_works_though_the_rest_of_the_configuration_does_not_load(tmp_path: Path) -> None:
    key_file(tmp_path / "keys", NEW_KEY)
    (tmp_path / "config.yaml").write_text(
        "secrets:\n  master_key: {file: '${env:KEYS:-keys}'}\n"
        "  vault: {address: 'http://vault.invalid', auth: {token: '${env:NOT_SET}'}}\n"
        "providers: [{name: x, api_key: '${sealed:lost:AAAA}', typ: none}]\n"
    )
    status, out, err = run("seal", cwd=tmp_path, stdin=SWORDFISH.encode())
    assert (0, "") == (status, err)
    assert out.startswith("${sealed:new:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("secrets: {directry: x}\n", "config.yaml:1:11: secrets.directry: unknown key"),
        (
            "secrets: {master_key: {file: '${env:NOPE}'}}\n",
            "config.yaml:1:30: secrets.master_key.file: `${env:NOPE}` is",
        ),
        ("secrets: {master_key: {file: absent}}\n", "sluice: absent cannot be read: there is no such file"),
        ("secrets: {master_key: {file: config.yaml}}\n", "sluice: config.yaml: key 1 "),
        (
            "secrets: {master_key: {file: k, transit: {key: k}}}\n",
            "sluice: `secrets.master_key.transit` is set: tell in",
        ),
        ("include: [absent.yaml]\n", "config.yaml:1:11: include[0]: there is no such file"),
        ("a: [\n", "config.yaml:1:"),
    ],
)
def test_seal_tells_what_is_wrong_with_where_the_key_comes_from(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "config.yaml").chmod(0o600)
    status, out, err = run("seal", cwd=tmp_path, stdin=SWORDFISH.encode())
    assert (1, "") == (status, out)
    assert err.startswith(words)
    assert "Traceback" not in err


def test_seal_reads_the_key_from_an_env_file_and_the_section_from_an_include(tmp_path: Path) -> None:
    key_file(tmp_path / "keys.env", f"{VARIABLE}='{NEW_KEY}'\n")
    assert run("seal", "--env-file", "keys.env", cwd=tmp_path, stdin=b"x")[1].startswith("${sealed:new:")
    (tmp_path / "config.yaml").write_text("include: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text("secrets: {master_key: {file: old.key}}\n")
    key_file(tmp_path / "old.key", OLD_KEY)
    assert run("seal", cwd=tmp_path, stdin=b"x")[1].startswith("${sealed:old:")


def test_seal_asks_a_person_without_showing_what_is_typed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command("seal"),
            cwd=tmp_path,
            env=environment(BOTH_KEYS),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            start_new_session=True,
        )
        shown = b""
        while b"Secret:" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, f"{SWORDFISH}\n".encode())
        out, _ = process.communicate(timeout=60)
        while b"quotes" not in shown or shown.count(b"\n") < 3:
            shown += os.read(ours, 1024)
    finally:
        os.close(ours)
        os.close(theirs)
    assert 0 == process.returncode
    reference = out.decode().strip()
    match = re.fullmatch(r"\$\{sealed:new:([A-Za-z0-9_-]+)\}", reference)
    assert match
    assert SWORDFISH.encode() == NEW.open("new", match[1], CONFIG)
    assert not labels(shown)
    assert f"'{reference}'".encode() in shown


def test_seal_and_rekey_with_keys_that_vault_has_wrapped(tmp_path: Path) -> None:
    with vault_stand_in() as vault:
        token = vault.token(vault.policy({"transit/*": ["create", "update"]}))
        extra = {"VAULT": vault.address, "TOKEN": token}
        (tmp_path / "config.yaml").write_text(
            "secrets:\n  vault: {address: '${env:VAULT}', auth: {token: '${env:TOKEN}'}}\n"
            "  master_key: {file: wrapped.key, transit: {key: sluice}}\n"
        )
        status, first, err = run("seal", cwd=tmp_path, stdin=SWORDFISH.encode(), extra=extra)
        assert 0 == status, err
        assert "made a master key, wrapped.key: keep a copy elsewhere" in err
        wrapped = (tmp_path / "wrapped.key").read_text()
        assert re.search(r"^k[0-9a-f]{8} vault:v1:\S+$", wrapped, re.MULTILINE)
        status, _, err = run("seal", cwd=tmp_path, stdin=SWORDFISH.encode(), extra=extra)
        assert (0, "") == (status, err)
        # A second key, as an operator wraps it.
        operator = hvac.Client(url=vault.address, token=vault.root_token)
        other = operator.secrets.transit.encrypt_data("sluice", base64.b64encode(planted_key("other-key")).decode())
        (tmp_path / "wrapped.key").write_text(f"other {other['data']['ciphertext']}\n{wrapped}")
        with (tmp_path / "config.yaml").open("a") as file:
            file.write(f"a: '{first.strip()}'\n")
        status, lines, errors = rekey(tmp_path, extra)
        assert (0, []) == (status, errors)
        assert "config.yaml: 1 value sealed anew with the key `other`" in lines
        vault.seal()
        status, _, errors = rekey(tmp_path, extra)
    assert 1 == status
    assert re.match("sluice: the keys in wrapped.key cannot be unwrapped: .*seal", errors[0])


def test_what_is_sealed_is_what_check_opens(tmp_path: Path) -> None:
    reference = run("seal", cwd=tmp_path, stdin=ADMIN_KEY_HASH.encode())[1].strip()
    (tmp_path / "config.yaml").write_text(f"management: {{admin_key_hash: '{reference}'}}\n")
    status, out, _ = run("check", cwd=tmp_path)
    assert 0 == status, out
    (tmp_path / "data" / "master.key").unlink()
    status, out, _ = run("check", cwd=tmp_path)
    assert 1 == status
    assert "config.yaml:1:30: management.admin_key_hash: `${sealed:" in out
    assert reference not in out


# rekey


@pytest.mark.parametrize(
    ("spelling", "ids"),
    [
        # `@` is the beginning of a sealed reference; the ids are what the values in their order are sealed with then.
        ("a: @}\nb:   @}  # a comment ${ with { signs\n", ["new", "new"]),
        ("a: '@}'\nb: 'x@}y@}z''s'\nc: ['@}', {d: '@}'}]\n", ["new"] * 5),
        ('a: "@}"\nb: "\\tx@} \\x41 @}\\u00e4"\n', ["new"] * 3),
        ("a: |\n  one @}\n  two @}\n\nb: >-\n  @}\n  and\nc: @}\n# the end\n", ["new"] * 4),
        ("a: |2-\n   @}\n  # no comment: @}\n# the end", ["new", "new"]),
        ("a: one\n  @} two\n\n  three @}\nb: 'one\n\n  @}'\n", ["new"] * 3),
        ("# first\r\na: '@}'\r\n\r\nb: |\r\n  @}\r\n  more\r\nc: 1\r\n", ["new", "new"]),
        ("a: '@}'\rb: @}\r", ["new", "new"]),
        ("a: '@}@}'", ["new", "new"]),
        ("a: '@:-default}'\nb: '${env:A:-x}@:-it''s}'\nc: '@:-}'\n", ["new"] * 3),
        ("a:\n- '@}'\n-   - '@}'\n    - b\n", ["new", "new"]),
        ("a: &a '@}'\nb: *a\nc: &c [&d '@}', *a]\nd: *c\n", ["new", "new"]),
        ("ä: 'ü \U0001f420 @} ß'\n# \U0001f420\nb: [\U0001f420, '@}']\n", ["new", "new"]),
        ("zebra: '@}'\napple:   {z: 1,   'y': \"@}\" ,}\n\n\n# end\n", ["new", "new"]),
        ("a: '$@} @}'\nb: '$$@}@}'\nc: \"\\x24{env:A}\"\n", ["old", "new", "old", "new"]),
        ("'@}': '@}'\n? \"@}\"\n: @}\n{0}", ["old", "new", "old", "new"]),
        ("a: '${env:HOME}'\nb: \"$${\"\nc: no\n", []),
        ("# nothing\n{}\n", []),
    ],
)
def test_rekey_changes_the_sealed_values_and_no_other_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spelling: str, ids: list[str]
) -> None:
    text = re.sub("@", lambda _: sealed(SWORDFISH)[:-1], spelling.replace("{0}", "")).encode()
    (tmp_path / "config.yaml").write_bytes(text)
    document = parse(text, "config.yaml")
    assert () == document.faults
    assert gateway.sealing.rekey(tmp_path / "config.yaml", BOTH_KEYS)
    after = (tmp_path / "config.yaml").read_bytes()
    assert (opened(text)[0], ids) == opened(after)
    out, err = capsys.readouterr()
    assert "" == err
    assert (after == text) == ("config.yaml: not changed" in out)
    # Once more, and nothing is left to do.
    assert gateway.sealing.rekey(tmp_path / "config.yaml", BOTH_KEYS)
    assert after == (tmp_path / "config.yaml").read_bytes()


TEXTS = st.text(st.sampled_from("@}$${ab:-'\"\\ \n#{[],&|>é\U0001f420"), max_size=30)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    values=st.lists(TEXTS, min_size=1, max_size=4),
    style=st.sampled_from([None, "'", '"', "|", ">"]),
    width=st.sampled_from([40, 10_000]),
)
def test_whatever_is_written_reads_as_before_and_what_reads_as_sealed_is_sealed_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: list[str], style: str | None, width: int
) -> None:
    whole = [value.replace("@", sealed(SWORDFISH)) for value in values]
    text = yaml.safe_dump({"a": whole, "b": {"c": whole[0]}}, default_style=style, allow_unicode=True, width=width)
    path = tmp_path / "config.yaml"
    path.write_text(text, newline="")
    before = parse(path.read_bytes(), "f")
    assume(not before.faults)
    good = gateway.sealing.rekey(path, BOTH_KEYS)
    after = parse(path.read_bytes(), "f")
    assert () == after.faults
    pairs = list(zip(texts_of(before.value), texts_of(after.value), strict=True))
    assert [opened(one.encode())[0] for one, _ in pairs] == [opened(other.encode())[0] for _, other in pairs]
    for one, other in pairs:
        try:
            read, found = parse_template(one), parse_template(other)
        except ReferenceFault:
            assert one == other
            assert not (good and "${sealed:" in one)
            continue
        assert [piece for piece in read if isinstance(piece, str)] == [each for each in found if isinstance(each, str)]
        assert set() == {each.parts["key_id"] for each in found if isinstance(each, Reference)} - {"new"}


def texts_of(value: Value) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_of(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_of(inner)]
    return [value] if isinstance(value, str) else []


def test_rekey_goes_through_the_root_and_its_includes(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.yaml").write_text(f"include: ['conf.d/*.yaml']\na: '{sealed(SWORDFISH)}'\n")
    (tmp_path / "conf.d" / "one.yaml").write_text(f"b: ['{sealed(SWORDFISH)}', '{sealed(MARLIN, NEW)}']\n")
    (tmp_path / "conf.d" / "two.yaml").write_text(f"c: ['{sealed(SWORDFISH)}', '{sealed(MARLIN)}']\n")
    (tmp_path / "conf.d" / "three.yaml").write_text(f"d: '{sealed(MARLIN, NEW)}'\n")
    (tmp_path / "elsewhere.yaml").write_text(f"e: '{sealed(SWORDFISH)}'\n")
    status, out, err = rekey(tmp_path)
    assert (0, []) == (status, err)
    assert [
        "config.yaml: 1 value sealed anew with the key `new`",
        "conf.d/one.yaml: 1 value sealed anew with the key `new`",
        "conf.d/three.yaml: not changed",
        "conf.d/two.yaml: 2 values sealed anew with the key `new`",
        "all is sealed with the key `new`: once every gateway has loaded that, other keys may go",
    ] == out
    for name in ("config.yaml", "conf.d/one.yaml", "conf.d/two.yaml", "conf.d/three.yaml"):
        assert {"new"} == set(opened((tmp_path / name).read_bytes())[1])
    assert ["old"] == opened((tmp_path / "elsewhere.yaml").read_bytes())[1]
    assert ["conf.d", "config.yaml", "elsewhere.yaml"] == sorted(path.name for path in tmp_path.iterdir())
    assert 3 == len(list((tmp_path / "conf.d").iterdir()))


def test_rekey_names_what_it_cannot_open_and_leaves_that_alone_as_it_is(tmp_path: Path) -> None:
    lost, damaged = sealed(SWORDFISH, LOST), sealed(SWORDFISH).replace("}", "AAAA}")
    wrong = sealed(SWORDFISH, KeyRing(parse_keys(f"new:{'04' * 32}")))
    lines = [
        f"a: '{sealed(MARLIN)}'",
        f"b: 'x {lost}'",
        f"c: [{{d: \"{damaged}\"}}, '{sealed(MARLIN)} {wrong}']",
        f'e: "{sealed(MARLIN).replace("$", chr(92) + "x24")}"',
        f"f: '{sealed(MARLIN)} ${{'",
        f'g: "{sealed(MARLIN)[:20]}{chr(92)}',
        f'  {sealed(MARLIN)[20:]}"',
    ]
    text = "\n".join(lines)
    (tmp_path / "config.yaml").write_text(text)
    status, out, err = rekey(tmp_path)
    assert 1 == status
    assert ["config.yaml: 2 values sealed anew with the key `new`"] == out
    expected = [
        ("2:7", "`${sealed:lost:…}` is sealed with the key `lost`, which is not among the master keys (`new`, `old`)"),
        ("3:10", "`${sealed:old:…}` was changed or cut"),
        (f"3:{lines[2].index(wrong) + 1}", "`${sealed:new:…}` does not open with the master key `new`"),
        ("4:4", "a sealed value is written with escapes or padding: write it as `./sluice seal` does"),
        ("5:4", "a `${` is not closed by `}`"),
        ("6:4", "a sealed value is written with escapes or padding"),
    ]
    assert len(expected) == len(err)
    for (place, words), told in zip(expected, err, strict=True):
        assert told.startswith(f"config.yaml:{place}: {words}")
    found = (tmp_path / "config.yaml").read_text().split("\n")
    assert [1, 3] == [number for number, line in enumerate(lines, 1) if line != found[number - 1]]
    assert lost in found[1]
    assert damaged in found[2]
    assert wrong in found[2]


def test_rekey_leaves_comments_and_tells_of_those_that_need_an_old_key(tmp_path: Path) -> None:
    old, new = sealed(SWORDFISH), sealed(SWORDFISH, NEW)
    text = (
        f"# before: {old}\n"
        f"a: '{new}' # beside: {new}, and an example: ${{sealed:old:TEXT}}\n"
        f"b: | # at the head: {old}\n  x\n#c: $${{sealed:old:AAAA}} {sealed(SWORDFISH, LOST)}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    status, out, err = rekey(tmp_path)
    assert (0, ["config.yaml: not changed"]) == (status, out)
    told = "a sealed value in a comment is left as it is, and still needs its key"
    assert [f"config.yaml:1:11: {told}", f"config.yaml:3:21: {told}"] == err
    assert text == (tmp_path / "config.yaml").read_text()


def test_rekey_keeps_mode_owner_and_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "sluice.yaml"
    real.write_text(f"a: '{sealed(SWORDFISH)}'\n")
    real.chmod(0o440)  # that nobody may write to it matters to no rename
    if os.geteuid() == 0:
        os.chown(real, 1234, 2345)
    os.utime(real, (1, 1))
    (tmp_path / "config.yaml").symlink_to("real/sluice.yaml")
    before = real.stat()
    assert 0 == rekey(tmp_path)[0]
    after = real.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert before.st_mtime < after.st_mtime
    assert "real/sluice.yaml" == str((tmp_path / "config.yaml").readlink())
    assert ["new"] == opened(real.read_bytes())[1]


def test_rekey_writes_a_file_with_several_names_once(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"a: ['{sealed(SWORDFISH)}']\n")
    (tmp_path / "two.yaml").symlink_to("one.yaml")
    (tmp_path / "config.yaml").write_text("include: [one.yaml, two.yaml]\n")
    status, out, err = rekey(tmp_path)
    assert (0, []) == (status, err)
    assert ["config.yaml: not changed", "one.yaml: 1 value sealed anew with the key `new`"] == out[:2]


_AS_ANYBODY = """
import ctypes, os, sys
if os.geteuid() == 0:
    # Root writes everywhere by CAP_DAC_OVERRIDE (1): capabilities(7), prctl(PR_CAPBSET_DROP).
    assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_rekey_tells_of_a_file_that_it_cannot_write_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    shut = tmp_path / "shut" / "a.yaml"
    shut.write_text(text := f"a: '{sealed(SWORDFISH)}'\n")
    (tmp_path / "config.yaml").write_text(f"include: [shut/a.yaml, z.yaml]\nb: '{sealed(SWORDFISH)}'\n")
    (tmp_path / "z.yaml").write_text(f"z: '{sealed(SWORDFISH)}'\n")
    (tmp_path / "shut").chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _AS_ANYBODY, *command("rekey")],
            cwd=tmp_path,
            env=environment(BOTH_KEYS),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        (tmp_path / "shut").chmod(0o755)
    assert 1 == done.returncode
    assert "shut/a.yaml:1:1: cannot be written, and is left as it is: Permission denied\n" == done.stderr
    assert [
        "config.yaml: 1 value sealed anew with the key `new`",
        "shut/a.yaml: not changed",
        "z.yaml: 1 value sealed anew with the key `new`",
    ] == done.stdout.splitlines()
    assert text == shut.read_text()
    assert [shut] == list((tmp_path / "shut").iterdir())


def test_rekey_does_not_overwrite_what_was_edited_meanwhile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"a: '{sealed(SWORDFISH)}'\n")
    sync = os.fsync

    def edited(descriptor: int) -> None:
        sync(descriptor)
        path.write_text("b: 1\n")

    monkeypatch.setattr(os, "fsync", edited)
    assert not gateway.sealing.rekey(path, BOTH_KEYS)
    assert "it was changed meanwhile; run the command again" in capsys.readouterr().err
    assert "b: 1\n" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


# Ends itself, as a kill would, at the third time that Python's audit hooks tell of this
# (https://docs.python.org/3/library/audit_events.html): each time before it is done.
_KILLED = """
import os, signal, sys
what, left = sys.argv[1], 3
def told(event, arguments):
    global left
    if event == what:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
from gateway.cli import main
sys.addaudithook(told)
main(["rekey"])
"""


@pytest.mark.parametrize("at", ["tempfile.mkstemp", "os.rename"])
def test_a_kill_between_files_leaves_each_whole_and_another_run_does_the_rest(tmp_path: Path, at: str) -> None:
    (tmp_path / "conf.d").mkdir()
    texts = {}
    for number in range(5):
        name = tmp_path / "conf.d" / f"{number:03}.yaml"
        texts[name] = f"key-{number}: '{sealed(SWORDFISH)}'\n".encode()
        name.write_bytes(texts[name])
    (tmp_path / "config.yaml").write_text("include: ['conf.d/*']\n")
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, at],
        cwd=tmp_path,
        env=environment(BOTH_KEYS),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert -signal.SIGKILL == done.returncode, done.stderr
    found = [opened(name.read_bytes()) for name in texts]
    assert [opened(text)[0] for text in texts.values()] == [text for text, _ in found]
    assert [["new"], ["new"], ["old"], ["old"], ["old"]] == [ids for _, ids in found]
    # What it was about to write when it ended is none of the documents.
    assert len([path for path in (tmp_path / "conf.d").iterdir() if path not in texts]) <= 1
    assert 0 == rekey(tmp_path)[0]
    assert {"new"} == {key for name in texts for key in opened(name.read_bytes())[1]}


def test_rekey_seals_the_kept_values_of_vault_anew_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("secrets: {directory: state}\n")
    kept = tmp_path / "state" / "vault-values.sealed"
    values = {"secret/llm": {"key": SWORDFISH}}
    KeptValues(kept, OLD).keep(values)
    status, out, err = rekey(tmp_path)
    assert (0, []) == (status, err)
    assert "state/vault-values.sealed: 1 value sealed anew with the key `new`" in out
    assert values == KeptValues(kept, NEW).read()
    assert 0o600 == stat.S_IMODE(kept.stat().st_mode)
    assert "state/vault-values.sealed: not changed" in rekey(tmp_path)[1]
    for damaged in (b"", b"new:AAAA", b"\xff\xfe", LOST.seal(b"{}", VAULT_VALUES).encode()):
        kept.write_bytes(damaged)
        status, out, err = rekey(tmp_path)
        assert 1 == status
        assert err[0].startswith("state/vault-values.sealed:1:1: ")
        assert damaged == kept.read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [\n", "config.yaml:1:"),
        ("include: [absent.yaml]\n", "config.yaml:1:11: include[0]: there is no such file"),
        ("include: [bad.yaml]\n", "bad.yaml:1:4: "),
        ("secrets: {directory: 5}\n", "config.yaml:1:22: secrets.directory: "),
    ],
)
def test_rekey_of_files_that_cannot_be_read_changes_nothing(tmp_path: Path, text: str, words: str) -> None:
    text = f"z: '{sealed(SWORDFISH)}'\n{text}"
    words = words.replace("config.yaml:1", "config.yaml:2")
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "bad.yaml").write_text("b: 'not closed\n")
    status, out, err = rekey(tmp_path)
    assert (1, []) == (status, out)
    assert any(line.startswith(words) for line in err), err
    assert text == (tmp_path / "config.yaml").read_text()


def test_rekey_without_keys_or_without_a_configuration_says_so(tmp_path: Path) -> None:
    status, out, err = rekey(tmp_path)
    assert (1, [], ["config.yaml:1:1: cannot be read: there is no such file"]) == (status, out, err)
    (tmp_path / "config.yaml").write_text("{}\n")
    status, out, err = rekey(tmp_path, {})
    assert (1, []) == (status, out)
    assert err[0].startswith(f"sluice: there is no master key: set `{VARIABLE}`")
    assert ["config.yaml"] == [path.name for path in tmp_path.iterdir()]


async def test_a_gateway_with_both_keys_serves_on_through_rekey(start_gateway: Callable[..., Gateway]) -> None:
    access = f"management: {{admin_key_hash: '{sealed(ADMIN_KEY_HASH)}'}}\n"
    running = start_gateway("providers: [{name: echo, type: echo, models: ['*']}]\n", access=access, extra=BOTH_KEYS)

    def revision() -> str | None:
        answer = running.management("GET", "/api/v1/health")
        assert 200 == answer.status
        return answer.headers.get("x-sluice-revision") or str(answer.json().get("revision"))

    before = revision()
    assert 0 == rekey(running.config.parent)[0]
    await until(lambda: revision() != before, what="the reload")
    assert ["new"] == opened(running.config.read_bytes())[1]
