"""The engines of the Vault stand-in: key-value 1 and 2, database credentials, transit, leases; and its logins."""

import base64
import binascii
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vault_messages import Answer, Request, success
from tests.vault_state import (
    SYSTEM_TTL,
    Lease,
    LoginRole,
    Mount,
    Namespace,
    Refused,
    Token,
    TransitKey,
    Version,
    no_route,
    seconds_of,
    timestamp,
)

if TYPE_CHECKING:
    from tests.vault_api import VaultApi

_WRONG_KV2_PATH = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. "
    "If using the Vault CLI, use 'vault kv get' for this operation."
)


@dataclass(frozen=True)
class Call:
    """A request that has reached its mount and is allowed."""

    vault: "VaultApi"
    request: Request
    namespace: Namespace
    mount: Mount
    path: str
    """Below the mount."""
    token: Token

    @property
    def operation(self) -> str:
        return self.request.operation


def is_new(mount: Mount, path: str) -> bool:
    """Whether a write to ``path`` below ``mount`` makes what is not there yet: it needs `create`, not `update`."""
    first, _, rest = path.partition("/")
    if mount.is_kv2:
        return first == "data" and rest not in mount.versions
    if mount.type == "kv":
        return path not in mount.values
    return mount.type == "transit" and first in ("encrypt", "keys") and rest not in mount.keys


def put_version(mount: Mount, path: str, data: dict[str, Any], now: float) -> int:
    """A new version of a secret of key-value 2; its number."""
    mount.versions.setdefault(path, []).append(Version(data, now))
    return len(mount.versions[path])


def _keys(paths: Mapping[str, object], below: str) -> dict[str, Any]:
    prefix = f"{below.strip('/')}/" if below.strip("/") else ""
    below_it = [each.removeprefix(prefix) for each in paths if each.startswith(prefix)]
    keys = sorted({first + slash for first, slash, _ in (each.partition("/") for each in below_it)})
    if not keys:
        raise Refused(404)
    return {"keys": keys}


def _kv1(call: Call) -> Answer:
    values = call.mount.values
    match call.operation:
        case "list":
            return success(_keys(values, call.path))
        case "write":
            values[call.path] = call.request.body
            return Answer(204)
        case "delete":
            values.pop(call.path, None)
            return Answer(204)
    if call.path not in values:
        raise Refused(404)
    data = values[call.path]
    # Not a lease: there is no id. A key `ttl` tells how long a reader may keep it, and by default the system's time.
    return success(data, lease_duration=seconds_of(data.get("ttl")) or SYSTEM_TTL)


def _kv2(call: Call) -> Answer:
    kind, _, path = call.path.partition("/")
    body, now = call.request.body, call.vault.now()
    versions = call.mount.versions.get(path, [])
    match kind, call.operation:
        case "config", "read":
            return success({"cas_required": False, "delete_version_after": "0s", "max_versions": 0})
        case "data", "read":
            return _read_version(versions, int(call.request.query.get("version") or 0))
        case "data", "write":
            wanted = body.get("options", {}).get("cas")
            if wanted is not None and int(wanted) != len(versions):
                raise Refused(400, "check-and-set parameter did not match the current version")
            if not isinstance(body.get("data"), dict):
                raise Refused(400, "no data provided")
            number = put_version(call.mount, path, body["data"], now)
            return success(call.mount.versions[path][-1].metadata(number))
        case "data", "delete":
            if versions and versions[-1].deleted_at is None:
                versions[-1].deleted_at = now
            return Answer(204)
        case (("delete" | "undelete" | "destroy"), "write"):
            for number in body.get("versions", []):
                if 1 <= int(number) <= len(versions):
                    _change(versions[int(number) - 1], kind, now)
            return Answer(204)
        case "metadata", "list":
            return success(_keys(call.mount.versions, path))
        case "metadata", "read" if versions:
            return success(_metadata(versions))
        case "metadata", "delete":
            call.mount.versions.pop(path, None)
            return Answer(204)
        case (("data" | "metadata" | "delete" | "undelete" | "destroy"), _):
            raise Refused(404)
    return success(status=404, warnings=[_WRONG_KV2_PATH])


def _read_version(versions: list[Version], number: int) -> Answer:
    number = number or len(versions)
    if not 1 <= number <= len(versions):
        raise Refused(404)
    version = versions[number - 1]
    gone = version.destroyed or version.deleted_at is not None
    data = {"data": None if gone else version.data, "metadata": version.metadata(number)}
    return success(data, status=404 if gone else 200)


def _change(version: Version, kind: str, now: float) -> None:
    match kind:
        case "delete":
            version.deleted_at = now
        case "undelete" if not version.destroyed:
            version.deleted_at = None
        case "destroy":
            version.destroyed, version.data = True, None


def _metadata(versions: list[Version]) -> dict[str, Any]:
    each = {str(number): version.metadata(number) for number, version in enumerate(versions, 1)}
    for metadata in each.values():
        del metadata["version"], metadata["custom_metadata"]
    return {
        "cas_required": False,
        "created_time": timestamp(versions[0].made_at),
        "current_version": len(versions),
        "custom_metadata": None,
        "delete_version_after": "0s",
        "max_versions": 0,
        "oldest_version": 0,
        "updated_time": timestamp(versions[-1].made_at),
        "versions": each,
    }


def _database(call: Call) -> Answer:
    kind, _, name = call.path.partition("/")
    if kind != "creds" or call.operation != "read":
        raise no_route(f"{call.mount.path}/{call.path}")
    role = call.mount.credentials.get(name)
    if role is None:
        raise Refused(400, f"unknown role: {name}")
    now = call.vault.now()
    lease = Lease(
        call.namespace.absolute(f"{call.mount.path}/creds/{name}/{secrets.token_urlsafe(18)}"),
        call.token,
        role,
        now,
        now + role.ttl,
        f"v-{name}-{secrets.token_hex(8)}",
    )
    call.vault.leases[lease.id] = lease
    return success(
        {"username": lease.username, "password": f"{secrets.token_urlsafe(15)}-A1a"},
        lease_id=lease.id,
        lease_duration=role.ttl,
        renewable=role.renewable,
    )


def lease_endpoint(vault: "VaultApi", action: str, body: Mapping[str, Any]) -> Answer:
    """`sys/leases/renew`, `revoke` and `lookup`."""
    lease_id = body.get("lease_id")
    if not lease_id:
        raise Refused(400, "lease_id must be specified")
    lease = vault.leases.get(lease_id)
    if action == "revoke":
        # One that is unknown is revoked already. Unless asked to wait, Vault does it in its own time: 202.
        vault.leases.pop(lease_id, None)
        return Answer(204 if body.get("sync") in (True, "true") else 202)
    if lease is None:
        raise Refused(400, "lease not found" if action == "renew" else "invalid lease")
    if action == "renew":
        seconds, warnings = lease.renew(vault.now(), seconds_of(body.get("increment", 0)))
        return success(lease_id=lease.id, lease_duration=seconds, renewable=True, warnings=warnings)
    return success(
        {
            "id": lease.id,
            "issue_time": timestamp(lease.made_at),
            "expire_time": timestamp(lease.expires_at),
            "last_renewal": None,
            "renewable": lease.role.renewable,
            "ttl": round(lease.expires_at - vault.now()),
        }
    )


def _transit(call: Call) -> Answer:
    kind, _, name = call.path.partition("/")
    keys, body = call.mount.keys, call.request.body
    match kind, call.operation:
        case "keys", "write" if name.endswith("/rotate"):
            keys[name.removesuffix("/rotate")].versions.append(secrets.token_bytes(32))
            return Answer(204)
        case "keys", "write":
            keys.setdefault(name, TransitKey())
            return Answer(204)
        case "encrypt", "write":
            plain = _decoded(body.get("plaintext"), "failed to base64-decode plaintext")
            key = keys.setdefault(name, TransitKey())
            nonce = secrets.token_bytes(12)
            sealed = nonce + AESGCM(key.versions[-1]).encrypt(nonce, plain, None)
            version = len(key.versions)
            text = f"vault:v{version}:{base64.b64encode(sealed).decode()}"
            return success({"ciphertext": text, "key_version": version})
        case "decrypt", "write":
            if name not in keys:
                raise Refused(400, "encryption key not found")
            return success({"plaintext": _opened(keys[name], str(body.get("ciphertext", "")))})
    raise no_route(f"{call.mount.path}/{call.path}")


def _decoded(text: object, complaint: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        raise Refused(400, complaint) from None


def _opened(key: TransitKey, text: str) -> str:
    if not text.startswith("vault:v"):
        raise Refused(400, "invalid ciphertext: no prefix")
    version, _, body = text.removeprefix("vault:v").partition(":")
    if not version.isdigit() or not 1 <= int(version) <= len(key.versions):
        raise Refused(400, "invalid ciphertext: version is too new")
    sealed = _decoded(body, "invalid ciphertext: could not decode base64")
    try:
        plain = AESGCM(key.versions[int(version) - 1]).decrypt(sealed[:12], sealed[12:], None)
    except (InvalidTag, ValueError):
        raise Refused(400, "cipher: message authentication failed") from None
    return base64.b64encode(plain).decode()


def _login_by_approle(mount: Mount, body: Mapping[str, Any]) -> LoginRole:
    if not body.get("role_id"):
        raise Refused(400, "missing role_id")
    for role in mount.logins.values():
        left = role.secret_ids.get(str(body.get("secret_id")))
        if role.role_id == body["role_id"] and left is not None:
            if left == 1:
                del role.secret_ids[str(body["secret_id"])]
            elif left:
                role.secret_ids[str(body["secret_id"])] = left - 1
            return role
    raise Refused(400, "invalid role or secret ID")


def _login_by_kubernetes(mount: Mount, body: Mapping[str, Any]) -> LoginRole:
    for name in ("role", "jwt"):
        if not body.get(name):
            raise Refused(400, f"missing {name}")
    role = mount.logins.get(body["role"])
    if role is None:
        raise Refused(400, f'invalid role name "{body["role"]}"')
    if body["jwt"] not in role.jwts:
        raise Refused(403, "permission denied")
    return role


KV2 = _kv2
ENGINES: dict[str, Callable[[Call], Answer]] = {"kv": _kv1, "database": _database, "transit": _transit}
LOGINS: dict[str, Callable[[Mount, Mapping[str, Any]], LoginRole]] = {
    "approle": _login_by_approle,
    "kubernetes": _login_by_kubernetes,
}
