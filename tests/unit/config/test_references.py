"""References: their grammar, and what becomes of them in a document."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from config.document import parse
from config.faults import Fault
from config.json_schema import shape
from config.references import (
    EnvironmentResolver,
    FileResolver,
    Reference,
    ReferenceFault,
    References,
    Resolver,
    label,
    parse_template,
)
from config.secret_files import SecretFiles
from config.substitute import Substituted, substitute
from core.secret import Secret


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("$ $$ {} $HOME $5", ("$ $$ {} $HOME $5",)),
        ("$${env:A}", ("${env:A}",)),
        ("a $${b} $${", ("a ${b} ${",)),
        ("${env:A}", (Reference("env", {"name": "A"}, "${env:A}"),)),
        ("$${${env:A}", ("${", Reference("env", {"name": "A"}, "${env:A}"))),
        ("x${env:A}y", ("x", Reference("env", {"name": "A"}, "${env:A}"), "y")),
        ("${env:A:-b:-c $ d}", (Reference("env", {"name": "A"}, "${env:A}", "b:-c $ d"),)),
        ("${env:A:-}", (Reference("env", {"name": "A"}, "${env:A}", ""),)),
        ("${file:a b/c:d}", (Reference("file", {"path": "a b/c:d"}, "${file:a b/c:d}"),)),
        (
            "${vault:kv/a/b@12#f:-d}",
            (
                Reference(
                    "vault", {"mount": "kv", "path": "a/b", "version": "12", "field": "f"}, "${vault:kv/a/b@12#f}", "d"
                ),
            ),
        ),
        *(
            (
                f"${{vault:kv/{path}#f}}",
                (Reference("vault", {"mount": "kv", "path": path, "field": "f"}, f"${{vault:kv/{path}#f}}"),),
            )
            for path in ("...", "..a/.b", "a?b", "%2e%2e/a", "a b/ключ")
        ),
        ("${vault:kv/a#f}", (Reference("vault", {"mount": "kv", "path": "a", "field": "f"}, "${vault:kv/a#f}"),)),
        ("${sealed:k1:AA_-}", (Reference("sealed", {"key_id": "k1", "text": "AA_-"}, "${sealed:k1:…}"),)),
    ],
)
def test_a_text_is_taken_apart(text: str, template: tuple[str | Reference, ...]) -> None:
    assert template == parse_template(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${env:A", "not closed"),
        ("${env:${env:A}}", "not closed"),
        ("${A}", "of no known kind"),
        ("${}", "of no known kind"),
        ("${:-x}", "of no known kind"),
        ("${secret:swordfish}", "of no known kind"),
        ("${env:}", "`${env:NAME}`"),
        ("${env:a-b}", "`${env:NAME}`"),
        ("${file:}", "`${file:PATH}`"),
        ("${vault:kv#f}", "MOUNT/PATH"),
        ("${vault:kv/a}", "MOUNT/PATH"),
        ("${vault:kv/a@x#f}", "MOUNT/PATH"),
        ("${vault:kv/a@1234567890#f}", "MOUNT/PATH"),
        *((f"${{vault:{bad}#f}}", "MOUNT/PATH") for bad in ("kv/../a", "../a", "kv/a/..", "kv/.", "./a", "kv/..@1")),
        *((f"${{vault:{bad}#f}}", "MOUNT/PATH") for bad in ("/a", "kv//a", "kv/a/", "kv/", "kv/a/@1")),
        *((f"${{vault:kv/a{bad}b#f}}", "MOUNT/PATH") for bad in ("\n", "\0", "\x7f", "\x85", "\ud800")),
        ("${sealed:k1}", "KEYID:BASE64URL"),
        ("${sealed:k1:a+b}", "KEYID:BASE64URL"),
    ],
)
def test_a_malformed_reference_is_told_without_its_text(text: str, words: str) -> None:
    with pytest.raises(ReferenceFault) as fault:
        parse_template(text)
    assert words in str(fault.value)
    assert "swordfish" not in str(fault.value)


def test_a_label_shows_no_default_and_no_literal_text() -> None:
    assert "${env:A} ${file:b}" == label(parse_template("Bearer ${env:A:-swordfish}${file:b}"))


Substitute = Callable[..., Substituted]


@pytest.fixture
def files() -> SecretFiles:
    return SecretFiles()


@pytest.fixture
def apply(tmp_path: Path, files: SecretFiles) -> Substitute:
    """``apply("YAML", NAME="value")`` substitutes in a document that lies in ``tmp_path``."""

    def apply(text: str, **environment: str) -> Substituted:
        resolvers: dict[str, Resolver] = {
            "env": EnvironmentResolver(environment),
            "file": FileResolver(files, tmp_path),
        }
        document = parse(text.encode(), "f")
        assert () == document.faults
        return substitute(document.value, shape(), References(resolvers))

    return apply


def at(found: Substituted, *path: str | int) -> object:
    value: object = found.value
    for step in path:
        assert isinstance(value, Mapping | list)
        value = value[step]  # type: ignore[index]
    return value


def secret(found: Substituted) -> Secret:
    handle = at(found, "management", "admin_key_hash")
    assert isinstance(handle, Secret)
    return handle


def test_references_inside_a_text_are_replaced(apply: Substitute) -> None:
    found = apply("server: {public_url: 'http://${env:HOST}:${env:PORT:-80}/$${x}'}", HOST="h")
    assert "http://h:80/${x}" == at(found, "server", "public_url")
    assert {("server", "public_url"): "${env:HOST} ${env:PORT}"} == found.referenced


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("workers", "0x10", 16),
        ("workers", "012", 12),
        ("workers", "many", "many"),  # left for the schema to tell
        ("drain_seconds", "1e1", 10.0),
        ("drain_seconds", "", None),
        ("public_url", "5", "5"),  # a text stays one
        ("public_url", "null", "null"),
    ],
)
def test_a_reference_that_is_a_whole_number_or_boolean_is_read_as_yaml(
    apply: Substitute, key: str, text: str, value: object
) -> None:
    read = at(apply(f"server: {{{key}: '${{env:V}}'}}", V=text), "server", key)
    assert (type(value), value) == (type(read), read)


def test_booleans_are_read_by_the_core_schema(apply: Substitute) -> None:
    for text, value in (("true", True), ("FALSE", False), ("yes", "yes")):
        assert value == at(apply("telemetry: {access_log: '${env:V}'}", V=text), "telemetry", "access_log")


def test_values_of_free_form_stay_text(apply: Substitute) -> None:
    text = "providers: [{name: a, type: echo, options: {n: '${env:V}', list: ['${env:V}', {deep: '${env:V}'}]}}]"
    options = at(apply(text, V="5"), "providers", 0, "options")
    assert {"n": "5", "list": ["5", {"deep": "5"}]} == options


def test_references_in_keys_are_left_alone(apply: Substitute) -> None:
    found = apply("providers: [{headers: {'${env:V}': '${env:V}'}}]", V="x")
    assert {"${env:V}": "x"} == at(found, "providers", 0, "headers")


@pytest.mark.parametrize("number", [".inf", "-.INF", ".nan"])
def test_only_finite_numbers_pass(apply: Substitute, number: str) -> None:
    for text in (f"server: {{drain_seconds: {number}}}", "server: {drain_seconds: '${env:V}'}"):
        (fault,) = apply(text, V=number).faults
        assert ("server", "drain_seconds") == fault.path
        assert "finite" in fault.message


def test_a_number_of_too_many_digits_is_a_fault_that_does_not_show_it(apply: Substitute) -> None:
    (fault,) = apply("server: {workers: '${env:V}'}", V="9" * 5000).faults
    assert "999" not in fault.message


def test_a_default_counts_where_the_value_is_missing_or_empty(apply: Substitute) -> None:
    for environment in ({}, {"V": ""}):
        found = apply("server: {listen: '${env:V:-a:1}'}", **environment)
        assert "a:1" == at(found, "server", "listen")
    assert "b" == at(apply("server: {listen: '${env:V:-a:1}'}", V="b"), "server", "listen")
    assert "" == at(apply("server: {listen: '${env:V}'}", V=""), "server", "listen")


def test_an_empty_default_makes_a_key_null_that_takes_null(apply: Substitute) -> None:
    for environment in ({}, {"V": ""}):
        found = apply(
            "management: {admin_key_hash: '${env:V:-}'}\nserver: {public_url: '${env:V:-}', listen: '${env:V:-}'}",
            **environment,
        )
        assert None is at(found, "management", "admin_key_hash")
        assert None is at(found, "server", "public_url")
        assert "" == at(found, "server", "listen")
    assert "hash" == secret(apply("management: {admin_key_hash: '${env:V:-}'}", V="hash")).reveal()


def test_a_missing_reference_names_itself_and_the_key_but_no_value(apply: Substitute) -> None:
    found = apply("tokens: [{sha256: '${env:OTHER}-${env:NOPE}'}]", OTHER="swordfish")
    assert [
        Fault(
            ("tokens", 0, "sha256"),
            "`${env:NOPE}` is not set: set it where the gateway is started, then start it again; "
            "or give a default: `${env:NOPE:-default}`",
        )
    ] == found.faults


def test_a_scheme_that_is_not_read_yet_is_told_even_with_a_default(apply: Substitute) -> None:
    for text in ("${vault:a/b#c:-d}", "${sealed:k:AAAA:-d}"):
        (fault,) = apply(f"management: {{admin_key_hash: '{text}'}}").faults
        assert "cannot stand here" in fault.message


def test_a_secret_is_a_handle_with_its_reference_for_a_label(apply: Substitute) -> None:
    handle = secret(apply("management: {admin_key_hash: 'x-${env:A}-$${y}'}", A="swordfish"))
    assert ("x-swordfish-${y}", "${env:A}") == (handle.reveal(), handle.label)


def test_a_literal_secret_is_unescaped(apply: Substitute) -> None:
    assert "a${b" == secret(apply("management: {admin_key_hash: 'a$${b'}")).reveal()


def test_a_secret_follows_its_file(apply: Substitute, files: SecretFiles, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one\n")
    handle = secret(apply("management: {admin_key_hash: '${file:key}'}"))
    also = secret(apply(f"management: {{admin_key_hash: 'Bearer ${{file:{path}}}'}}"))
    assert ("one", "Bearer one") == (handle.reveal(), also.reveal())
    path.write_text("two\n")
    assert "one" == handle.reveal(), "no file is read on use"
    assert (path,) == files.refresh()
    assert ("two", "Bearer two") == (handle.reveal(), also.reveal())


def test_a_default_stands_in_for_a_file_until_it_appears(apply: Substitute, files: SecretFiles, tmp_path: Path) -> None:
    handle = secret(apply("management: {admin_key_hash: '${file:later:-now}'}"))
    assert "now" == handle.reveal()
    assert () == files.refresh()
    (tmp_path / "later").write_text("here")
    files.refresh()
    assert "here" == handle.reveal()


def test_an_unreadable_file_is_a_fault_in_spite_of_a_default(apply: Substitute, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff")
    (fault,) = apply("management: {admin_key_hash: '${file:key:-x}'}").faults
    assert "`${file:key}` is not UTF-8 text" == fault.message


def test_what_could_not_be_had_renders_without_alarm(apply: Substitute) -> None:
    assert "Unresolved()" == repr(at(apply("server: {listen: '${env:NOPE}'}"), "server", "listen"))
