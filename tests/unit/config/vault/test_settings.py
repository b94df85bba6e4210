"""Settings of a Vault server: which values stay good across reloads, and what may be shown of an address."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.schema import ClientTls, Vault, VaultAuth
from config.vault.settings import VaultSettings
from core.secret import Secret


def _settings(token: str = "one", label: str = "${env:TOKEN}", **config: Any) -> VaultSettings:
    auth = VaultAuth(token=Secret.literal(token, label))
    return VaultSettings(Vault(**{"address": "http://vault:8200", "auth": auth, **config}), Path("/etc/sluice"))


def test_only_times_may_differ_on_the_same_server() -> None:
    assert _settings().same_server(_settings())
    assert _settings().same_server(_settings(cache_seconds=5.0, timeout_seconds=1.0))


@pytest.mark.parametrize(
    "other",
    [
        lambda: _settings(address="http://other:8200"),
        lambda: _settings(namespace="team"),
        lambda: _settings(kv=1),
        lambda: _settings(mounts=("a/b",)),
        lambda: _settings(tls=ClientTls(ca="ca.pem")),
        lambda: _settings("two"),
        lambda: _settings(label="${env:OTHER}"),
        lambda: _settings(auth=VaultAuth()),
        lambda: msgspec.structs.replace(_settings(), directory=Path("/other")),
    ],
)
def test_with_anything_else_it_is_another_server(other: Callable[[], VaultSettings]) -> None:
    assert not _settings().same_server(other())
    assert not other().same_server(_settings())


def test_a_secret_whose_source_now_gives_another_value_is_another_secret_id() -> None:
    values = ["one"]
    rotating = Secret(lambda: values[0], "${file:secret-id}")
    auth = VaultAuth(method="approle", role_id="r", secret_id=rotating)
    settings = _settings(auth=auth)
    # Both read the same file: whichever it gives is used at the next sign-in.
    assert settings.same_server(_settings(auth=msgspec.structs.replace(auth)))


def test_a_password_in_the_address_is_not_shown(planted_secret: str) -> None:
    assert "https://vault:8200/base" == _settings(address=f"https://me:{planted_secret}@vault:8200/base/").server


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://vault:8200/base/?token={}", "https://vault:8200/base"),
        ("https://vault/#{}", "https://vault"),
        ("http://[::1]:8200", "http://[::1]:8200"),
        ("http://[::1?{}", "`secrets.vault.address`"),
        ("http://me:{}/x@vault", "`secrets.vault.address`"),
        ("me:{}@vault", "`secrets.vault.address`"),
        ("{}", "`secrets.vault.address`"),
        ("", "`secrets.vault.address`"),
    ],
)
def test_what_is_shown_of_an_address_says_where_it_is_and_nothing_else(
    address: str, shown: str, planted_secret: str
) -> None:
    assert shown == _settings(address=address.format(planted_secret)).server


def test_relative_names_begin_at_the_directory_of_the_document() -> None:
    assert Path("/etc/sluice/ca.pem") == _settings().path("ca.pem")
    assert Path("/run/ca.pem") == _settings().path("/run/ca.pem")
