"""The Vault stand-in against hvac, the client that the gateway uses: Vault's shapes, statuses and texts."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import hvac
import hvac.exceptions
import pytest
import requests

from tests.vault_http import AUTHORITY, CERTIFICATES, server_tls
from tests.vault_server import NoNamespaces, prepared
from tests.vault_stand_in import VaultStandIn, vault_stand_in

READ = ["read"]


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as vault:
        yield vault


class Clients:
    """hvac clients that are closed at the end of the test."""

    def __init__(self, vault: VaultStandIn) -> None:
        self._vault = vault
        self._open: list[hvac.Client] = []

    def __call__(self, token: str | None = None, namespace: str | None = None, **settings: Any) -> Any:
        """An :class:`hvac.Client`, of whose answers its types know too little to look into them."""
        own: dict[str, Any] = {"url": self._vault.address, "timeout": 60, "verify": True}
        # Of no token hvac would look for one in the environment.
        client = hvac.Client(token="" if token is None else token, namespace=namespace, proxies={}, **own | settings)
        client.session.trust_env = False
        self._open.append(client)
        return client

    def close(self) -> None:
        for client in self._open:
            client.adapter.close()


@pytest.fixture
def client(vault: VaultStandIn) -> Iterator[Clients]:
    clients = Clients(vault)
    yield clients
    clients.close()


def refusal(error: pytest.ExceptionInfo[hvac.exceptions.VaultError]) -> list[str]:
    errors = error.value.errors
    assert isinstance(errors, list)
    return errors


def as_json(error: pytest.ExceptionInfo[hvac.exceptions.VaultError]) -> Any:
    return error.value.json


# Key-value 2


def test_key_value_2_keeps_versions(vault: VaultStandIn, client: Clients) -> None:
    assert 1 == vault.put("secret/llm/openai", api_key="one", base="https://…")
    assert 2 == vault.put("secret/llm/openai", api_key="two")
    kv = client(vault.root_token).secrets.kv.v2

    newest = kv.read_secret_version("llm/openai", raise_on_deleted_version=True)

    assert {"api_key": "two"} == newest["data"]["data"]
    assert {"created_time", "custom_metadata", "deletion_time", "destroyed", "version"} == set(
        newest["data"]["metadata"]
    )
    assert 2 == newest["data"]["metadata"]["version"]
    assert ("", 0, False) == (newest["lease_id"], newest["lease_duration"], newest["renewable"])
    first = kv.read_secret_version("llm/openai", version=1, raise_on_deleted_version=True)
    assert {"api_key": "one", "base": "https://…"} == first["data"]["data"]


def test_a_secret_that_is_not_there_is_a_404_without_a_word(vault: VaultStandIn, client: Clients) -> None:
    kv = client(vault.root_token).secrets.kv.v2
    vault.put("secret/there", a="1")
    for path, version in [("nowhere", None), ("there", 7)]:
        with pytest.raises(hvac.exceptions.InvalidPath) as error:
            kv.read_secret_version(path, version=version, raise_on_deleted_version=True)
        assert [] == refusal(error)


@pytest.mark.parametrize("destroy", [False, True])
def test_a_deleted_version_is_a_404_that_carries_its_metadata(
    vault: VaultStandIn, client: Clients, destroy: bool
) -> None:
    vault.put("secret/old", a="1")
    vault.put("secret/old", a="2")
    vault.delete("secret/old", 1, destroy=destroy)
    kv = client(vault.root_token).secrets.kv.v2

    with pytest.raises(hvac.exceptions.InvalidPath) as error:
        kv.read_secret_version("old", version=1, raise_on_deleted_version=True)

    told = as_json(error)["data"]
    assert told["data"] is None
    assert destroy == told["metadata"]["destroyed"]
    assert destroy == (told["metadata"]["deletion_time"] == "")
    assert {"a": "2"} == kv.read_secret_version("old", raise_on_deleted_version=True)["data"]["data"]
    if not destroy:  # hvac's own understanding of such an answer
        assert kv.read_secret_version("old", version=1, raise_on_deleted_version=False)["data"]["data"] is None


def test_key_value_2_is_written_deleted_and_listed_through_its_api(vault: VaultStandIn, client: Clients) -> None:
    kv = client(vault.root_token).secrets.kv.v2
    made = kv.create_or_update_secret("team/a", {"x": "1"})
    assert 1 == made["data"]["version"]
    kv.create_or_update_secret("team/a", {"x": "2"}, cas=1)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="check-and-set"):
        kv.create_or_update_secret("team/a", {"x": "3"}, cas=1)
    kv.create_or_update_secret("team/b/c", {"y": "1"})

    assert ["a", "b/"] == kv.list_secrets("team")["data"]["keys"]
    metadata = kv.read_secret_metadata("team/a")["data"]
    assert (2, ["1", "2"]) == (metadata["current_version"], sorted(metadata["versions"]))
    kv.delete_latest_version_of_secret("team/a")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("team/a", raise_on_deleted_version=True)
    kv.undelete_secret_versions("team/a", [2])
    assert {"x": "2"} == kv.read_secret_version("team/a", raise_on_deleted_version=True)["data"]["data"]
    kv.destroy_secret_versions("team/a", [2])
    kv.undelete_secret_versions("team/a", [2])
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("team/a", raise_on_deleted_version=True)
    kv.delete_metadata_and_all_versions("team/a")
    with pytest.raises(hvac.exceptions.InvalidPath) as error:
        kv.read_secret_metadata("team/a")
    assert [] == refusal(error)


def test_a_path_without_data_is_told_so(vault: VaultStandIn, client: Clients) -> None:
    with pytest.raises(hvac.exceptions.InvalidPath) as error:
        client(vault.root_token).adapter.get("/v1/secret/llm/openai")
    assert "Invalid path for a versioned K/V secrets engine" in as_json(error)["warnings"][0]


# Key-value 1, and mounts


def test_key_value_1_gives_a_duration_without_a_lease(vault: VaultStandIn, client: Clients) -> None:
    vault.put("kv/team/key", api_key="one")
    vault.put("kv/short", api_key="two", ttl="90s")
    kv = client(vault.root_token).secrets.kv.v1

    secret = kv.read_secret("team/key", mount_point="kv")

    assert {"api_key": "one"} == secret["data"]
    assert ("", 2764800, False) == (secret["lease_id"], secret["lease_duration"], secret["renewable"])
    assert 90 == kv.read_secret("short", mount_point="kv")["lease_duration"]
    assert ["short", "team/"] == kv.list_secrets("", mount_point="kv")["data"]["keys"]
    kv.create_or_update_secret("team/key", {"api_key": "three"}, mount_point="kv")
    assert {"api_key": "three"} == kv.read_secret("team/key", mount_point="kv")["data"]
    kv.delete_secret("team/key", mount_point="kv")
    with pytest.raises(hvac.exceptions.InvalidPath) as error:
        kv.read_secret("team/key", mount_point="kv")
    assert [] == refusal(error)


@pytest.mark.parametrize(
    ("asked", "kind", "options", "path"),
    [
        ("secret", "kv", {"version": "2"}, "secret/"),
        ("secret/llm/openai", "kv", {"version": "2"}, "secret/"),
        ("kv", "kv", {"version": "1"}, "kv/"),
        ("plain", "kv", None, "plain/"),
        ("team/a/secrets/x", "kv", {"version": "2"}, "team/a/secrets/"),
        ("database", "database", None, "database/"),
    ],
)
def test_a_mount_is_described(
    vault: VaultStandIn, client: Clients, asked: str, kind: str, options: dict[str, str] | None, path: str
) -> None:
    vault.mount("plain", "kv")
    vault.mount("team/a/secrets")
    described = client(vault.root_token).adapter.get(f"/v1/sys/internal/ui/mounts/{asked}")["data"]
    assert (kind, options, path) == (described["type"], described["options"], described["path"])


def test_a_mount_is_described_to_whom_a_policy_lets_into_it(vault: VaultStandIn, client: Clients) -> None:
    inside = client(vault.token(vault.policy({"secret/data/llm/*": READ})))
    assert "kv" == inside.adapter.get("/v1/sys/internal/ui/mounts/secret")["data"]["type"]
    for mount in ("kv", "nowhere"):
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            inside.adapter.get(f"/v1/sys/internal/ui/mounts/{mount}")
        assert [
            f'preflight capability check returned 403, please ensure client\'s policies grant access to path "{mount}/"'
        ] == refusal(error)
    vault.deny("sys/internal/ui/mounts/*")
    with pytest.raises(hvac.exceptions.Forbidden, match="preflight capability check"):
        inside.adapter.get("/v1/sys/internal/ui/mounts/secret")


def test_an_engine_that_is_not_there_has_no_route(vault: VaultStandIn, client: Clients) -> None:
    with pytest.raises(hvac.exceptions.InvalidPath) as error:
        client(vault.root_token).adapter.get("/v1/nowhere/x")
    assert ['no handler for route "nowhere/x". route entry not found.'] == refusal(error)


# Policies


@pytest.mark.parametrize(
    ("pattern", "path", "granted"),
    [
        ("secret/data/llm/openai", "secret/data/llm/openai", True),
        ("secret/data/llm/openai", "secret/data/llm/openai2", False),
        ("secret/data/llm/*", "secret/data/llm/openai/eu", True),
        ("secret/data/llm/o*", "secret/data/llm/openai", True),
        ("secret/data/llm/*", "secret/data/web", False),
        ("secret/data/+/openai", "secret/data/llm/openai", True),
        ("secret/data/+/openai", "secret/data/llm/eu/openai", False),
        ("secret/+/llm/*", "secret/data/llm/openai", True),
        ("secret/llm/openai", "secret/data/llm/openai", False),
    ],
)
def test_a_policy_covers_paths(vault: VaultStandIn, client: Clients, pattern: str, path: str, granted: bool) -> None:
    vault.put(path.replace("/data/", "/"), a="1")
    reader = client(vault.token(vault.policy({pattern: READ})))
    if granted:
        assert {"a": "1"} == reader.read(path)["data"]["data"]
        return
    with pytest.raises(hvac.exceptions.Forbidden) as error:
        reader.read(path)
    assert ["1 error occurred:\n\t* permission denied\n\n"] == refusal(error)


def test_the_most_specific_rule_counts_and_deny_goes_first(vault: VaultStandIn, client: Clients) -> None:
    for name in ("open", "shut", "listed"):
        vault.put(f"secret/{name}", a="1")
    rules = {"secret/data/*": READ, "secret/data/shut": ["deny"], "secret/data/listed": ["list"]}
    reader = client(vault.token(vault.policy(rules), vault.policy({"secret/data/shut": READ})))
    assert {"a": "1"} == reader.read("secret/data/open")["data"]["data"]
    for name in ("shut", "listed"):
        with pytest.raises(hvac.exceptions.Forbidden):
            reader.read(f"secret/data/{name}")


def test_what_a_token_may_is_told(vault: VaultStandIn, client: Clients) -> None:
    reader = client(vault.token(vault.policy({"secret/data/llm/*": READ})))
    told = reader.sys.get_capabilities(["secret/data/llm/openai", "secret/data/web", "sys/leases/renew"])["data"]
    assert (READ, ["deny"], ["update"]) == (
        told["secret/data/llm/openai"],
        told["secret/data/web"],
        told["sys/leases/renew"],
    )


def test_a_denial_on_command_is_everybody_s(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    root = client(vault.root_token)
    vault.deny("secret/data/a")
    with pytest.raises(hvac.exceptions.Forbidden):
        root.read("secret/data/a")
    vault.allow()
    assert {"a": "1"} == root.read("secret/data/a")["data"]["data"]


# Tokens and logins


def test_a_token_is_looked_up_renewed_and_revoked_by_itself(vault: VaultStandIn, client: Clients) -> None:
    token = vault.token(ttl=600, max_ttl=1000)
    own = client(token)
    told = own.auth.token.lookup_self()["data"]
    assert (token, 600, 600, True, ["default"]) == (
        told["id"],
        told["creation_ttl"],
        told["ttl"],
        told["renewable"],
        told["policies"],
    )
    vault.advance(300)
    assert told["ttl"] - 300 == own.auth.token.lookup_self()["data"]["ttl"]
    assert 600 == own.auth.token.renew_self()["auth"]["lease_duration"]
    assert 100 == own.auth.token.renew_self(increment="100s")["auth"]["lease_duration"]
    vault.advance(90)
    assert 600 == own.auth.token.renew_self()["auth"]["lease_duration"]
    vault.advance(500)
    # No longer than max_ttl from its making.
    assert 110 == own.auth.token.renew_self()["auth"]["lease_duration"]
    own.auth.token.revoke_self()
    with pytest.raises(hvac.exceptions.Forbidden) as error:
        own.auth.token.lookup_self()
    assert ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"] == refusal(error)
    assert [] == vault.tokens()


def test_a_token_ends_by_the_clock(vault: VaultStandIn, client: Clients) -> None:
    own = client(vault.token(ttl=60))
    vault.advance(59)
    own.auth.token.lookup_self()
    vault.advance(2)
    with pytest.raises(hvac.exceptions.Forbidden, match="invalid token"):
        own.auth.token.lookup_self()


def test_a_periodic_token_is_renewed_for_ever(vault: VaultStandIn, client: Clients) -> None:
    own = client(vault.token(period=60))
    for _ in range(5):
        vault.advance(50)
        assert 60 == own.auth.token.renew_self()["auth"]["lease_duration"]


@pytest.mark.parametrize("root", [True, False])
def test_some_tokens_are_not_renewable(vault: VaultStandIn, client: Clients, root: bool) -> None:
    own = client(vault.root_token if root else vault.token(ttl=60, renewable=False))
    told = own.auth.token.lookup_self()["data"]
    assert (False, 0 if root else 60, root) == (told["renewable"], told["ttl"], told["expire_time"] is None)
    with pytest.raises(hvac.exceptions.InvalidRequest) as error:
        own.auth.token.renew_self()
    assert ["lease is not renewable"] == refusal(error)


def test_without_a_token_all_is_denied(vault: VaultStandIn, client: Clients) -> None:
    for path in ("secret/data/x", "auth/token/lookup-self", "sys/internal/ui/mounts/secret"):
        with pytest.raises(hvac.exceptions.Forbidden) as error:
            client().adapter.get(f"/v1/{path}")
        assert ["permission denied"] == refusal(error)


@pytest.mark.parametrize("mount", ["approle", "team/roles"])
def test_an_approle_signs_in(vault: VaultStandIn, client: Clients, mount: str) -> None:
    vault.put("secret/a", a="1")
    policy = vault.policy({"secret/data/a": READ})
    login = vault.approle(policy, ttl=600, max_ttl=900, mount=mount)
    gateway = client()

    auth = gateway.auth.approle.login(login.role_id, login.secret_id, mount_point=mount)["auth"]

    assert (600, True, ["default", policy]) == (auth["lease_duration"], auth["renewable"], auth["policies"])
    assert {"a": "1"} == gateway.read("secret/data/a")["data"]["data"]
    for role_id, secret_id in [(login.role_id, "wrong"), ("wrong", login.secret_id)]:
        with pytest.raises(hvac.exceptions.InvalidRequest) as error:
            client().auth.approle.login(role_id, secret_id, mount_point=mount)
        assert ["invalid role or secret ID"] == refusal(error)


def test_a_secret_id_is_used_up(vault: VaultStandIn, client: Clients) -> None:
    login = vault.approle(uses=2)
    for _ in range(2):
        client().auth.approle.login(login.role_id, login.secret_id)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid role or secret ID"):
        client().auth.approle.login(login.role_id, login.secret_id)


@pytest.mark.parametrize("mount", ["kubernetes", "clusters/eu"])
def test_a_service_account_signs_in(vault: VaultStandIn, client: Clients, mount: str) -> None:
    role = vault.kubernetes("a.jwt", mount=mount, ttl=300)
    auth = client().auth.kubernetes.login(role.name, "a.jwt", mount_point=mount)["auth"]
    assert (300, {"role": role.name}) == (auth["lease_duration"], auth["metadata"])
    with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
        client().auth.kubernetes.login(role.name, "another.jwt", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest, match='invalid role name "nobody"'):
        client().auth.kubernetes.login("nobody", "a.jwt", mount_point=mount)


def test_a_method_that_is_not_enabled_denies(vault: VaultStandIn, client: Clients) -> None:
    with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
        client().auth.approle.login("a", "b", mount_point="elsewhere")


# Leases


def test_credentials_come_with_a_lease_that_is_renewed_up_to_its_maximum(vault: VaultStandIn, client: Clients) -> None:
    vault.credentials("database/creds/app", ttl=600, max_ttl=1000)
    app = client(vault.token(vault.policy({"database/creds/app": READ})))

    secret = app.read("database/creds/app")

    assert secret["lease_id"].startswith("database/creds/app/")
    assert (600, True) == (secret["lease_duration"], secret["renewable"])
    assert {"username", "password"} == set(secret["data"])
    assert secret["data"] != app.read("database/creds/app")["data"]
    vault.advance(500)
    renewed = app.sys.renew_lease(secret["lease_id"])
    assert (500, secret["lease_id"]) == (renewed["lease_duration"], renewed["lease_id"])
    assert "exceeded the effective max_ttl" in renewed["warnings"][0]
    assert 100 == app.sys.renew_lease(secret["lease_id"], increment=100)["lease_duration"]
    vault.advance(101)
    with pytest.raises(hvac.exceptions.InvalidRequest) as error:
        app.sys.renew_lease(secret["lease_id"])
    assert ["lease not found"] == refusal(error)
    assert vault.lease(secret["data"]["username"]) is None


def test_a_lease_that_is_not_renewable_is_not(vault: VaultStandIn, client: Clients) -> None:
    vault.credentials("database/creds/app", renewable=False)
    root = client(vault.root_token)
    secret = root.read("database/creds/app")
    assert not secret["renewable"]
    with pytest.raises(hvac.exceptions.InvalidRequest) as error:
        root.sys.renew_lease(secret["lease_id"])
    assert ["lease is not renewable"] == refusal(error)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="unknown role: other"):
        root.read("database/creds/other")


def test_to_revoke_a_lease_takes_a_policy_and_to_end_a_token_does_not(vault: VaultStandIn, client: Clients) -> None:
    vault.credentials("database/creds/app")
    rules = {"database/creds/app": READ}
    plain = client(vault.token(vault.policy(rules)))
    allowed = client(vault.token(vault.policy(rules | {"sys/leases/revoke": ["update"]})))
    first, second = plain.read("database/creds/app"), allowed.read("database/creds/app")

    with pytest.raises(hvac.exceptions.Forbidden):
        plain.sys.revoke_lease(first["lease_id"])
    assert 202 == allowed.sys.revoke_lease(second["lease_id"]).status_code
    assert 202 == allowed.sys.revoke_lease(second["lease_id"]).status_code  # and once more is no fault
    assert [first["data"]["username"]] == [lease.username for lease in vault.leases()]
    plain.auth.token.revoke_self()
    assert [] == vault.leases()


def test_the_leases_of_a_token_end_with_it(vault: VaultStandIn, client: Clients) -> None:
    vault.credentials("database/creds/app", ttl=3600)
    app = client(vault.token(vault.policy({"database/creds/app": READ}), ttl=60))
    app.read("database/creds/app")
    assert 1 == len(vault.leases())
    vault.advance(61)
    assert [] == vault.leases()


# Transit


def test_transit_encrypts_and_decrypts(vault: VaultStandIn, client: Clients) -> None:
    transit = client(vault.root_token).secrets.transit
    plain = base64.b64encode(b"master key").decode()
    transit.create_key("sluice")
    sealed = transit.encrypt_data("sluice", plain)["data"]["ciphertext"]
    assert sealed.startswith("vault:v1:")
    transit.rotate_key("sluice")
    assert transit.encrypt_data("sluice", plain)["data"]["ciphertext"].startswith("vault:v2:")
    assert plain == transit.decrypt_data("sluice", sealed)["data"]["plaintext"]
    flipped = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for name, text, complaint in [
        ("sluice", flipped, "message authentication failed"),
        ("sluice", "plain", "invalid ciphertext: no prefix"),
        ("sluice", "vault:v9:AAAA", "invalid ciphertext: version is too new"),
        ("other", sealed, "encryption key not found"),
    ]:
        with pytest.raises(hvac.exceptions.InvalidRequest, match=complaint):
            transit.decrypt_data(name, text)


def test_a_key_is_made_only_by_whom_create_is_granted(vault: VaultStandIn, client: Clients) -> None:
    rules = {"transit/encrypt/sluice": ["update"]}
    user = client(vault.token(vault.policy(rules)))
    with pytest.raises(hvac.exceptions.Forbidden):
        user.secrets.transit.encrypt_data("sluice", "QQ==")
    client(vault.root_token).secrets.transit.create_key("sluice")
    user.secrets.transit.encrypt_data("sluice", "QQ==")


# Namespaces


def test_a_namespace_is_named_by_header_or_path_and_keeps_its_secrets(vault: VaultStandIn, client: Clients) -> None:
    vault.namespace("team-a")
    vault.namespace("team-a/eu")
    for namespace in ("team-a", "team-a/eu"):
        vault.mount("secret", namespace=namespace)
        vault.put("secret/x", namespace=namespace, of=namespace)
    vault.put("secret/x", of="root")
    root = vault.root_token

    assert "root" == client(root).read("secret/data/x")["data"]["data"]["of"]
    assert "team-a" == client(root, "team-a").read("secret/data/x")["data"]["data"]["of"]
    assert "team-a" == client(root).read("team-a/secret/data/x")["data"]["data"]["of"]
    assert "team-a/eu" == client(root, "team-a/eu/").read("secret/data/x")["data"]["data"]["of"]
    assert "team-a/eu" == client(root, "team-a").read("eu/secret/data/x")["data"]["data"]["of"]
    with pytest.raises(hvac.exceptions.InvalidPath, match="namespace not found"):
        client(root, "elsewhere").adapter.get("/v1/secret/data/x")


def test_a_token_of_a_namespace_is_good_there_alone(vault: VaultStandIn, client: Clients) -> None:
    vault.namespace("team-a")
    vault.mount("secret", namespace="team-a")
    vault.put("secret/x", namespace="team-a", of="team-a")
    vault.put("secret/x", of="root")
    policy = vault.policy({"secret/data/x": READ}, namespace="team-a")
    login = vault.approle(policy, namespace="team-a")
    inside = client(namespace="team-a")
    token = inside.auth.approle.login(login.role_id, login.secret_id)["auth"]["client_token"]

    assert "team-a" == inside.read("secret/data/x")["data"]["data"]["of"]
    assert "team-a/" == inside.auth.token.lookup_self()["data"]["namespace_path"]
    with pytest.raises(hvac.exceptions.Forbidden):
        client(token).read("secret/data/x")
    with pytest.raises(hvac.exceptions.Forbidden):
        client().auth.approle.login(login.role_id, login.secret_id)
    # A policy of the root namespace may reach into one.
    outside = vault.token(vault.policy({"team-a/secret/data/x": READ}))
    assert "team-a" == client(outside, "team-a").read("secret/data/x")["data"]["data"]["of"]


# Its health, and what befalls it


def test_a_sealed_server_says_so_and_nothing_else(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    root = client(vault.root_token)
    vault.seal()
    with pytest.raises(hvac.exceptions.VaultDown) as error:
        root.read("secret/data/a")
    assert ["Vault is sealed"] == refusal(error)
    assert root.sys.is_sealed()
    answer = root.sys.read_health_status(method="GET")
    assert (503, True) == (answer.status_code, answer.json()["sealed"])
    with pytest.raises(hvac.exceptions.VaultDown):
        client().auth.approle.login("a", "b")
    vault.unseal()
    assert {"a": "1"} == root.read("secret/data/a")["data"]["data"]


@pytest.mark.parametrize(
    ("role", "status", "standby"),
    [
        ("active", 200, False),
        ("standby", 429, True),
        ("disaster-recovery", 472, True),
        ("performance-standby", 473, True),
        ("no-leader", 474, True),
    ],
)
def test_health_tells_what_the_node_is(vault: VaultStandIn, role: str, status: int, standby: bool) -> None:
    vault.become(role)
    for method in ("get", "head"):
        answer = requests.request(method, f"{vault.address}/v1/sys/health", timeout=60)
        assert status == answer.status_code
        assert method == "head" or standby == answer.json()["standby"]


def test_a_standby_passes_requests_on_unless_nobody_leads(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    vault.become("standby")
    assert {"a": "1"} == client(vault.root_token).read("secret/data/a")["data"]["data"]
    vault.become("no-leader")
    with pytest.raises(hvac.exceptions.InternalServerError) as error:
        client(vault.root_token).read("secret/data/a")
    assert ["local node not active but active cluster node not found"] == refusal(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, hvac.exceptions.InternalServerError),
        (502, hvac.exceptions.BadGateway),
        (503, hvac.exceptions.VaultDown),
        (412, hvac.exceptions.UnexpectedError),
    ],
)
def test_it_fails_on_command_so_often(
    vault: VaultStandIn, client: Clients, status: int, kind: type[hvac.exceptions.VaultError]
) -> None:
    vault.put("secret/a", a="1")
    root = client(vault.root_token)
    vault.fail(status, "something broke", times=2, path="secret/")
    for _ in range(2):
        with pytest.raises(kind, match="something broke"):
            root.read("secret/data/a")
    assert {"a": "1"} == root.read("secret/data/a")["data"]["data"]


def test_a_rate_limit_is_a_429_that_says_when_to_come_again(vault: VaultStandIn, client: Clients) -> None:
    vault.limit_rate(path="secret/data/a")
    with pytest.raises(hvac.exceptions.RateLimitExceeded) as error:
        client(vault.root_token).read("secret/data/a")
    assert ['request path "secret/data/a": rate limit quota exceeded'] == refusal(error)
    again = requests.get(f"{vault.address}/v1/secret/data/a", timeout=60)
    assert "1" == again.headers["retry-after"]


def test_slow_answers_exceed_a_client_s_patience(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    vault.slow(60, path="secret/")
    with pytest.raises(requests.exceptions.ReadTimeout):
        client(vault.root_token, timeout=0.2).read("secret/data/a")
    patient = client(vault.root_token)
    # What is elsewhere is not slow.
    patient.auth.token.lookup_self()
    vault.recover()
    assert {"a": "1"} == patient.read("secret/data/a")["data"]["data"]


def test_an_answer_may_trickle(vault: VaultStandIn) -> None:
    vault.trickle(0.005)
    began = time.perf_counter()
    answer = requests.get(f"{vault.address}/v1/sys/health", timeout=60)
    assert answer.json()["initialized"]
    assert time.perf_counter() - began > 0.005 * len(answer.content) * 0.5


def test_an_answer_may_be_no_json(vault: VaultStandIn) -> None:
    vault.garble(times=1)
    assert "<html>Bad Gateway</html>" == requests.get(f"{vault.address}/v1/sys/health", timeout=60).text
    assert requests.get(f"{vault.address}/v1/sys/health", timeout=60).json()["initialized"]


def test_it_stops_and_starts_on_the_same_port_with_all_it_knew(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    root = client(vault.root_token)
    root.read("secret/data/a")
    port = vault.port
    vault.stop()
    with pytest.raises(requests.exceptions.ConnectionError, match=r"refused|reset|aborted"):
        root.read("secret/data/a")
    with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
        root.read("secret/data/a")
    vault.start()
    assert port == vault.port
    assert {"a": "1"} == root.read("secret/data/a")["data"]["data"]


def test_it_ends_at_once_while_an_answer_waits(vault: VaultStandIn) -> None:
    vault.slow(float("inf"))
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            requests.get(f"{vault.address}/v1/sys/health", timeout=120)
        except requests.exceptions.ConnectionError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not vault.waiting:
        time.sleep(0.01)
    began = time.perf_counter()
    vault.stop()
    asking.join()
    assert time.perf_counter() - began < 20
    assert 1 == len(failed)


# Prepared through its API, as a real server is


def test_what_was_prepared_is_removed_at_the_end(vault: VaultStandIn, client: Clients) -> None:
    root = vault.api.namespaces[""]
    before = (sorted(root.mounts), sorted(root.auths), sorted(root.policies))
    with prepared(vault.address, vault.root_token) as server:
        namespace = server.namespace("team")
        server.namespace(f"{namespace}/eu")
        for name in ("", namespace):
            store, plain = server.mount("store", namespace=name), server.mount("plain", "kv", namespace=name)
            assert 1 == server.put(f"{store}/a/b", namespace=name, value="1")
            assert 0 == server.put(f"{plain}/a/b", namespace=name, value="1")
            server.delete(f"{plain}/a/b", namespace=name)
            policy = server.policy({f"{store}/data/*": READ}, namespace=name)
            login = server.approle(policy, ttl=60, namespace=name)
            one = client(namespace=name or None)
            one.auth.approle.login(login.role_id, login.secret_id, mount_point=login.mount)
            assert {"value": "1"} == one.read(f"{store}/data/a/b")["data"]["data"]
            server.delete(f"{store}/a/b", namespace=name)
            with pytest.raises(hvac.exceptions.InvalidPath):
                one.adapter.get(f"/v1/{store}/data/a/b")
            one.auth.token.revoke_self()
        token = server.token(policy, ttl=60)
        assert server.is_good(token)
        server.expire_token(token)
        assert not server.is_good(token)
        server.token(period=60)
    assert before == (sorted(root.mounts), sorted(root.auths), sorted(root.policies))
    assert ([""], [], []) == (sorted(vault.api.namespaces), vault.tokens(), vault.leases())


def test_a_server_without_namespaces_is_told_apart(vault: VaultStandIn) -> None:
    vault.fail(404, "1 error occurred:\n\t* unsupported path\n\n", path="sys/namespaces/")
    with prepared(vault.address, vault.root_token) as server, pytest.raises(NoNamespaces):
        server.namespace("team")


# The socket


def test_a_connection_is_kept(vault: VaultStandIn) -> None:
    connection = HTTPConnection("127.0.0.1", vault.port, timeout=60)
    for method, path, status in [("GET", "sys/health", 200), ("HEAD", "sys/health", 200), ("GET", "secret/x", 403)]:
        connection.request(method, f"/v1/{path}")
        first = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert status == answer.status
        assert "application/json" == answer.headers["content-type"]
        assert "no-store" == answer.headers["cache-control"]
        assert first is connection.sock
    connection.close()


def test_what_was_asked_is_remembered(vault: VaultStandIn, client: Clients) -> None:
    vault.put("secret/a", a="1")
    root = client(vault.root_token, "")
    root.secrets.kv.v2.read_secret_version("a", version=1, raise_on_deleted_version=True)
    root.auth.token.lookup_self()
    (seen,) = vault.asked("secret/*")
    assert ("GET", "secret/data/a", {"version": "1"}, 200) == (
        seen.method,
        seen.path,
        seen.request.query,
        seen.status,
    )
    assert "true" == seen.headers["x-vault-request"]
    assert 1 == len(vault.asked("auth/token/lookup-self"))
    vault.forget()
    assert [] == vault.requests


def test_a_fault_of_the_stand_in_itself_fails_the_test() -> None:
    with (
        pytest.raises(json.JSONDecodeError),
        vault_stand_in() as vault,
        pytest.raises(requests.exceptions.ConnectionError),
    ):
        requests.post(f"{vault.address}/v1/secret/data/x", data=b"no json", timeout=60)


def test_it_speaks_tls_and_sees_the_client_s_certificate() -> None:
    with vault_stand_in(server_tls(ask_client=True)) as vault:
        clients = Clients(vault)
        own = (str(CERTIFICATES / "client.pem"),) * 2
        clients(vault.root_token, verify=str(AUTHORITY), cert=own).auth.token.lookup_self()
        assert "gateway one" == vault.requests[-1].client_certificate
        for settings in ({"verify": str(AUTHORITY)}, {"cert": own}):
            with pytest.raises(requests.exceptions.ConnectionError):
                clients(vault.root_token, **settings).auth.token.lookup_self()
        # One that says nothing holds nobody up.
        with socket.create_connection(("127.0.0.1", vault.port)):
            clients(vault.root_token, verify=str(AUTHORITY), cert=own).auth.token.lookup_self()
        clients.close()
    assert issubclass(ssl.SSLError, OSError)
