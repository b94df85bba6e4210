"""Master keys: where they are looked for, what is no key, how one is made; and what a sealed reference becomes."""

import base64
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from config.master_key import OWN_FILE, VARIABLE, MasterKeyFault, SealedResolver, Wrapper, parse_keys, read_key_ring
from config.references import Reference, ReferenceFault, References, parse_template
from config.schema import MasterKey, Transit
from config.sealing import CONFIG, VAULT_VALUES, KeyRing, SealingKey, derived_id
from config.vault.errors import VaultUnavailable
from tests.gateway_process import environment
from tests.planted import place_of_secrets, planted

ExpectLog = Callable[..., AbstractContextManager[None]]

ONE, TWO = bytes(range(0xE0, 0x100)), bytes(range(32))
ONE_64, TWO_64 = base64.b64encode(ONE).decode(), base64.b64encode(TWO).decode()
ONE_URL = base64.urlsafe_b64encode(ONE).decode()
PLANTED = planted("no-key")


def ring(*keys: tuple[str, bytes]) -> KeyRing:
    return KeyRing([SealingKey(key_id, key) for key_id, key in keys])


def opens(keys: KeyRing, key_id: str, key: bytes) -> bool:
    """Whether ``keys`` has this very key."""
    found_id, _, text = ring((key_id, key)).seal(b"plain", CONFIG).partition(":")
    return keys.open(found_id, text, CONFIG) == b"plain"


def read(
    place: Path,
    settings: MasterKey | None = None,
    env: str | None = None,
    session: Callable[[], Wrapper] | None = None,
    *,
    make: bool = False,
) -> KeyRing | None:
    environment = {} if env is None else {VARIABLE: env}
    return read_key_ring(settings or MasterKey(), environment, place, "data", session, make=make)


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(MasterKeyFault) as fault:
        read(*arguments, **options)  # type: ignore[arg-type]
    assert PLANTED not in str(fault.value)
    return str(fault.value)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    place_of_secrets(path).write_text(text)
    path.chmod(mode)


class Transits:
    """A Transit engine of our own: wrapping is base64, and it is told who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self) -> "Transits":
        return self

    def transit_encrypt(self, mount: str, key: str, data: bytes) -> str:
        self.asked.append((mount, key))
        return f"vault:v1:{base64.b64encode(data[::-1]).decode()}"

    def transit_decrypt(self, mount: str, key: str, text: str) -> bytes:
        self.asked.append((mount, key))
        return base64.b64decode(text.removeprefix("vault:v1:"))[::-1]


WRAPPED = MasterKey(file="wrapped.key", transit=Transit(mount="engine", key="ours"))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", []),
        (" \n# nothing\n,,", []),
        (ONE_64, [(derived_id(ONE), ONE)]),
        (ONE_64.rstrip("="), [(derived_id(ONE), ONE)]),
        (ONE_URL, [(derived_id(ONE), ONE)]),
        (ONE_URL.rstrip("="), [(derived_id(ONE), ONE)]),
        (ONE.hex(), [(derived_id(ONE), ONE)]),
        (ONE.hex().upper(), [(derived_id(ONE), ONE)]),
        (f"main:{ONE_64}", [("main", ONE)]),
        (f"2026-10.a_b:{ONE.hex()}", [("2026-10.a_b", ONE)]),
        (f"a:{ONE_64},b:{TWO_64}", [("a", ONE), ("b", TWO)]),
        (f"a:{ONE_64} , {TWO_64}\t", [("a", ONE), (derived_id(TWO), TWO)]),
        (f"# the new one\r\na:{ONE_64}#a\r\n\r\nb:{TWO_64} # the old one\r\n", [("a", ONE), ("b", TWO)]),
        (f"a:{ONE_64} a:{ONE.hex()}", [("a", ONE)]),
    ],
)
def test_keys_are_read_in_their_order(text: str, keys: list[tuple[str, bytes]]) -> None:
    found = parse_keys(text)
    assert [key_id for key_id, _ in keys] == [key.id for key in found]
    for key_id, key in keys:
        assert opens(KeyRing(found), key_id, key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLANTED, "key 1 is not 32 bytes in base64, nor 64 hexadecimal digits: make a key with `openssl rand"),
        (f"{ONE_64} {PLANTED}", "key 2 is not 32 bytes"),
        (ONE_64[:-4], "key 1 is not 32 bytes"),
        (ONE_64 + "A", "key 1 is not 32 bytes"),
        (ONE_64 + "==", "key 1 is not 32 bytes"),
        (ONE.hex()[:-1], "key 1 is not 32 bytes"),
        (ONE.hex() + "0", "key 1 is not 32 bytes"),
        (f"{PLANTED}:", "key 1 is not 32 bytes"),
        ("main:", "key 1 is not 32 bytes"),
        (f"{PLANTED}/{PLANTED}:{ONE_64}", "key 1 has an id that is not 1 to 32 letters, digits, `.`, `_` and `-`"),
        (f":{ONE_64}", "key 1 has an id"),
        (f"{PLANTED}:{PLANTED}:{ONE_64}", "key 1 has an id"),
        (f"{ONE_64}:main", "key 1 has an id"),
        (f"-a:{ONE_64}", "key 1 has an id"),
        (f"a:{ONE_64} a:{TWO_64}", "two keys have the id `a`: give the new one another"),
    ],
)
def test_what_is_no_key_is_told_with_its_place_and_without_its_text(text: str, words: str) -> None:
    with pytest.raises(MasterKeyFault) as fault:
        parse_keys(text, "here")
    assert str(fault.value).startswith("here: ")
    assert words in str(fault.value)
    for part in (PLANTED, ONE_64, ONE_64.rstrip("="), ONE.hex()):
        assert part not in str(fault.value)


def test_the_environment_goes_before_a_file_and_that_before_our_own(tmp_path: Path) -> None:
    named = MasterKey(file="named.key")
    write(tmp_path / "named.key", f"named:{TWO_64}")
    write(tmp_path / "data" / OWN_FILE, f"own:{TWO_64}")
    env = f"first:{ONE_64} second:{TWO_64}"
    for settings, variable, ids in (
        (named, env, ("first", "second")),
        (named, None, ("named",)),
        (named, "", ("named",)),
        (named, " # none\n", ("named",)),
        (MasterKey(), None, ("own",)),
    ):
        keys = read(tmp_path, settings, variable)
        assert keys is not None
        assert ids == keys.ids


def test_without_any_there_is_none_and_nothing_is_made(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert [] == list(tmp_path.iterdir())


def test_the_environment_is_named_where_it_holds_no_key(tmp_path: Path) -> None:
    assert refusal(tmp_path, env=PLANTED).startswith(f"`{VARIABLE}`: key 1 is not")


def test_relative_files_begin_at_the_root_documents_directory_and_absolute_ones_do_not(tmp_path: Path) -> None:
    write(tmp_path / "keys" / "a.key", f"a:{ONE_64}")
    for name in ("keys/a.key", str(tmp_path / "keys" / "a.key")):
        keys = read(tmp_path, MasterKey(file=name))
        assert keys is not None
        assert opens(keys, "a", ONE)


def test_a_file_that_cannot_be_used_is_told_with_its_path_and_the_mend(tmp_path: Path) -> None:
    write(tmp_path / "empty", "")
    write(tmp_path / "comments", "# none yet\n")
    place_of_secrets(tmp_path / "binary").write_bytes(PLANTED.encode() + b"\xff")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "wrong", f"{ONE_64}\n{PLANTED}\n")
    for name, words in (
        (
            "absent",
            "cannot be read: there is no such file: make a key with `openssl rand -base64 32`, and keep it there",
        ),
        ("empty", "holds no key: make a key with `openssl rand -base64 32`, or restore the file"),
        ("comments", "holds no key"),
        ("binary", "is not UTF-8 text"),
        ("folder", "is not a regular file"),
    ):
        assert refusal(tmp_path, MasterKey(file=name), make=True).startswith(f"{tmp_path / name} {words}")
    assert refusal(tmp_path, MasterKey(file="wrong")).startswith(f"{tmp_path / 'wrong'}: key 2 is not 32 bytes")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.key", ONE_64, 0o000)
    assert refusal(tmp_path, MasterKey(file="a.key")).endswith("cannot be read: Permission denied")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_use_is_warned_of_once(tmp_path: Path, expect_log: ExpectLog, mode: int) -> None:
    write(tmp_path / "a.key", ONE_64, mode)
    with expect_log(r"sluice\.secrets: master key file .*a\.key may be .* other users: chmod 600 it"):
        assert read(tmp_path, MasterKey(file="a.key")) is not None
    assert read(tmp_path, MasterKey(file="a.key")) is not None


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_alone_is_not_warned_of(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "a.key", ONE_64, mode)
    assert read(tmp_path, MasterKey(file="a.key")) is not None


def test_a_key_is_made_once_with_a_warning(tmp_path: Path, expect_log: ExpectLog) -> None:
    with expect_log(r"sluice\.secrets: made a master key, .*data/master\.key: keep a copy elsewhere"):
        made = read(tmp_path, make=True)
    assert made is not None
    path = tmp_path / "data" / OWN_FILE
    assert (0o600, 0o700) == (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode))
    assert [path] == list(path.parent.iterdir())
    content = path.read_text()
    (key,) = parse_keys(content)
    assert made.first_id == key.id
    again = read(tmp_path, make=True)
    assert again is not None
    assert (made.ids, content) == (again.ids, path.read_text())
    key_id, _, text = made.seal(b"plain", CONFIG).partition(":")
    assert b"plain" == again.open(key_id, text, CONFIG)


def test_an_own_file_that_was_emptied_is_not_made_anew(tmp_path: Path) -> None:
    write(tmp_path / "data" / OWN_FILE, "")
    assert "holds no key" in refusal(tmp_path, make=True)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    assert f"{tmp_path}/data/master.key cannot be made: " in refusal(tmp_path, make=True)


_MAKE = """
import sys
from pathlib import Path
from config.master_key import read_key_ring
from config.schema import MasterKey
print("ready", flush=True)
sys.stdin.readline()
keys = read_key_ring(MasterKey(), {}, Path(sys.argv[1]), "data", None, make=True)
print(keys.seal(b"plain", "config"))
"""


def test_processes_that_make_a_key_at_once_all_get_the_same(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [0] * 4 == [process.returncode for process in processes], results
    # One has made it, and says so.
    assert 1 == sum("made a master key" in err for _, err in results)
    keys = read(tmp_path)
    assert keys is not None
    for out, _ in results:
        key_id, _, text = out.strip().partition(":")
        assert b"plain" == keys.open(key_id, text, CONFIG)
    assert [tmp_path / "data" / OWN_FILE] == list((tmp_path / "data").iterdir())


def test_wrapped_keys_are_unwrapped_by_transit(tmp_path: Path) -> None:
    transit = Transits()
    lines = [f"new {transit.transit_encrypt('engine', 'ours', ONE)} # since May", "", "# before", ""]
    lines += [f"  old\t{transit.transit_encrypt('engine', 'ours', TWO)}"]
    # Others may read it: it is of no use to them.
    write(tmp_path / "wrapped.key", "\r\n".join(lines), 0o644)
    transit.asked.clear()
    keys = read(tmp_path, WRAPPED, session=transit)
    assert keys is not None
    assert ("new", "old") == keys.ids
    assert opens(keys, "new", ONE)
    assert opens(keys, "old", TWO)
    assert [("engine", "ours")] * 2 == transit.asked


def test_a_missing_file_of_wrapped_keys_is_made_where_it_may_be(tmp_path: Path, expect_log: ExpectLog) -> None:
    transit = Transits()
    assert "there is no such file: restore it" in refusal(tmp_path, WRAPPED, session=transit)
    assert [] == transit.asked
    with expect_log("made a master key, .*wrapped.key"):
        made = read(tmp_path, WRAPPED, session=transit, make=True)
    found = read(tmp_path, WRAPPED, session=transit)
    assert made is not None
    assert found is not None
    assert made.ids == found.ids
    text = (tmp_path / "wrapped.key").read_text()
    wrapped = text.split()[-1]
    assert wrapped.startswith("vault:v1:")
    assert derived_id(transit.transit_decrypt("", "", wrapped)) == made.first_id


def test_the_environment_needs_no_transit(tmp_path: Path) -> None:
    def session() -> Wrapper:
        raise AssertionError("nobody asks Vault")

    assert read(tmp_path, WRAPPED, ONE_64, session) is not None


def test_what_is_wrong_with_wrapped_keys_is_told(tmp_path: Path) -> None:
    transit = Transits()
    good = transit.transit_encrypt("", "", ONE)
    short = transit.transit_encrypt("", "", b"short")
    other = transit.transit_encrypt("", "", TWO)
    for text, words in (
        ("", "wrapped.key holds no key: restore the file"),
        ("# none\n", "wrapped.key holds no key"),
        (f"{ONE_64}\n", "wrapped.key: line 1 is not of the form `ID vault:v1:…`"),
        (f"a {good}\n{good}", "wrapped.key: line 2 is not of the form"),
        (f"a {good}\na/b {good}", "wrapped.key: line 2 is not of the form"),
        (f"a {PLANTED}", "wrapped.key: line 1 is not of the form"),
        (f"a {short}", "wrapped.key: line 1 holds 5 bytes instead of 32"),
        (f"a {good}\na {other}", "wrapped.key: two keys have the id `a`"),
    ):
        write(tmp_path / "wrapped.key", text)
        assert words in refusal(tmp_path, WRAPPED, session=transit)
    assert "name the file" in refusal(tmp_path, MasterKey(transit=Transit(key="ours")), session=transit)
    assert "tell in `secrets.vault` where Vault is" in refusal(tmp_path, WRAPPED)


def test_a_vault_that_does_not_unwrap_is_told_with_its_reason(tmp_path: Path) -> None:
    class Sealed(Transits):
        def transit_decrypt(self, mount: str, key: str, text: str) -> bytes:
            raise VaultUnavailable("Vault is sealed: unseal it", "sealed")

        def transit_encrypt(self, mount: str, key: str, data: bytes) -> str:
            raise VaultUnavailable("Vault is sealed: unseal it", "sealed")

    assert "cannot be unwrapped: Vault is sealed" in refusal(tmp_path, WRAPPED, session=Sealed(), make=True)
    assert [] == list(tmp_path.iterdir())
    write(tmp_path / "wrapped.key", f"a {Transits().transit_encrypt('', '', ONE)}")
    assert "wrapped.key cannot be unwrapped: Vault is sealed" in refusal(tmp_path, WRAPPED, session=Sealed())


def reference(sealed: str, default: str = "") -> Reference:
    (piece,) = parse_template(f"${{sealed:{sealed}{default}}}")
    assert isinstance(piece, Reference)
    return piece


def test_a_sealed_reference_gives_its_value_and_shows_its_key_alone() -> None:
    keys = ring(("a", ONE))
    sealed = keys.seal(PLANTED.encode(), CONFIG)
    handle = References({"sealed": SealedResolver(lambda: keys)}).secret(parse_template(f"${{sealed:{sealed}}}"))
    assert (PLANTED, "${sealed:a:…}") == (handle.reveal(), handle.label)


def test_a_sealed_reference_that_does_not_open_says_why_and_shows_nothing_even_with_a_default() -> None:
    keys = ring(("a", ONE))
    sealed = keys.seal(PLANTED.encode(), CONFIG)
    changed = sealed[:-1] + ("A" if sealed[-1] != "A" else "B")
    elsewhere = ring(("b", TWO)).seal(PLANTED.encode(), CONFIG)
    for text, words in (
        (changed, "`${sealed:a:…}` was changed or cut"),
        (elsewhere, "`${sealed:b:…}` is sealed with the key `b`, which is not among the master keys (`a`)"),
        (ring(("a", TWO)).seal(PLANTED.encode(), CONFIG), "`${sealed:a:…}` does not open with the master key `a`"),
        (keys.seal(PLANTED.encode(), VAULT_VALUES), "`${sealed:a:…}` does not open with the master key `a`"),
        (keys.seal(PLANTED.encode() + b"\xff", CONFIG), "`${sealed:a:…}` holds no UTF-8 text"),
    ):
        for default in ("", ":-default"):
            with pytest.raises(ReferenceFault) as fault:
                SealedResolver(lambda: keys)(reference(text, default))
            assert str(fault.value).startswith(words)
            assert PLANTED not in str(fault.value)
            assert text.partition(":")[2] not in str(fault.value)


def test_a_sealed_reference_without_any_key_says_where_one_should_be() -> None:
    sealed = ring(("a", ONE)).seal(b"plain", CONFIG)

    def refused() -> KeyRing | None:
        raise MasterKeyFault("/etc/sluice.key holds no key")

    for keys, words in (
        (lambda: None, f"`${{sealed:a:…}}` cannot be opened: there is no master key: set `{VARIABLE}`, or name a file"),
        (refused, "`${sealed:a:…}` cannot be opened: /etc/sluice.key holds no key"),
    ):
        with pytest.raises(ReferenceFault) as fault:
            SealedResolver(keys)(reference(sealed))
        assert str(fault.value).startswith(words)


def test_a_directory_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(MasterKeyFault, match=r"data/master\.key cannot be looked for: Permission denied"):
        read_key_ring(MasterKey(), {}, tmp_path, "data", None, make=False)
