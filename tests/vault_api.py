"""The HTTP API of the Vault stand-in, without the HTTP: from a request to the status and JSON that Vault gives.

The subset that a client of secrets needs, and of the administration what it takes to prepare one.
Shapes and texts are those of Vault 1.20 as its API documentation and its clients' reports show them.
"""

import base64
import json
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests import vault_engines as engines
from tests.planted import planted
from tests.vault_messages import Answer, Request, errors, success
from tests.vault_state import (
    SYSTEM_TTL,
    Lease,
    LoginRole,
    Mount,
    Namespace,
    Refused,
    Token,
    capabilities,
    invalid_token,
    mounted_at,
    no_route,
    permission_denied,
    reaches,
    seconds_of,
    segments_match,
    timestamp,
)

HEALTH = {"active": 200, "standby": 429, "disaster-recovery": 472, "performance-standby": 473, "no-leader": 474}
"""What a node may be, and the status of its `sys/health`."""

_HCL_RULE = re.compile(r'path\s+"(?P<path>[^"]+)"\s*\{[^}]*?capabilities\s*=\s*\[(?P<granted>[^]]*)\]', re.DOTALL)


class VaultApi:
    """One server's state, and its answers. Methods may be called from any thread, one at a time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.lock = threading.RLock()
        self.namespaces = {"": Namespace("")}
        self.tokens: dict[str, Token] = {}
        self.leases: dict[str, Lease] = {}
        self.sealed = False
        self.role = "active"
        self.denied: set[str] = set()
        """Patterns of paths that no token may use, not even the root one."""
        self.root = self.make_token(
            ("root",), token_id=f"{planted('vault-root-token', 'hvs.')}_{secrets.token_urlsafe(18)}"
        ).id

    # Preparing

    def namespace(self, path: str) -> Namespace:
        """The namespace at ``path``, made where it is not there yet."""
        return self.namespaces.setdefault(path.strip("/"), Namespace(path.strip("/")))

    def mount(self, path: str, kind: str, options: Mapping[str, str] | None = None, namespace: str = "") -> Mount:
        path = path.strip("/")
        mounts = self.namespace(namespace).mounts
        if any(each == path or f"{each}/".startswith(f"{path}/") for each in mounts):
            raise Refused(400, f"path is already in use at {path}/")
        if kind == "kv-v2":
            kind, options = "kv", {"version": "2"}
        mounts[path] = Mount(path, kind, dict(options) if options else None)
        return mounts[path]

    def login_role(self, kind: str, mount: str, role: LoginRole, namespace: str = "") -> LoginRole:
        """Add ``role`` to the authentication method at ``mount``, which is enabled where it is not yet."""
        auths = self.namespace(namespace).auths
        auths.setdefault(mount, Mount(mount, kind)).logins[role.name] = role
        return role

    def make_token(
        self,
        policies: tuple[str, ...],
        *,
        namespace: str = "",
        path: str = "auth/token/create",
        ttl: float = 0.0,
        max_ttl: float = 0.0,
        period: float = 0.0,
        renewable: bool = True,
        token_id: str = "",
    ) -> Token:
        root = "root" in policies
        token = Token(
            token_id or f"{planted('vault-token', 'hvs.')}_{secrets.token_urlsafe(30)}",
            namespace.strip("/"),
            policies if root else tuple(dict.fromkeys(("default", *policies))),
            self.now(),
            path,
            max_ttl=max_ttl or SYSTEM_TTL,
            period=period,
            renewable=renewable and not root,
        )
        if not root:
            token.ttl = period or min(ttl or SYSTEM_TTL, token.max_ttl)
            token.expires_at = self.now() + token.ttl
        self.tokens[token.id] = token
        return token

    def end_token(self, token: Token) -> None:
        """Revoke a token, and with it the leases of what it has fetched."""
        self.tokens.pop(token.id, None)
        for lease in [each for each in self.leases.values() if each.token is token]:
            del self.leases[lease.id]

    def end_what_is_over(self) -> None:
        for token in [each for each in self.tokens.values() if each.expires_at is not None]:
            if token.expires_at is not None and token.expires_at <= self.now():
                self.end_token(token)
        for lease in [each for each in self.leases.values() if each.expires_at <= self.now()]:
            del self.leases[lease.id]

    # Answering

    def answer(self, request: Request) -> Answer:
        with self.lock:
            self.end_what_is_over()
            try:
                return self._answer(request)
            except Refused as refused:
                return errors(refused.status, *refused.errors)

    def _answer(self, request: Request) -> Answer:
        if request.path == "sys/health":
            return self._health()
        if request.path in ("sys/seal-status", "sys/leader"):
            return self._seal_status() if request.path == "sys/seal-status" else self._leader()
        if self.sealed:
            raise Refused(503, "Vault is sealed")
        if self.role == "no-leader":
            raise Refused(500, "local node not active but active cluster node not found")
        namespace, path = self._namespace_of(request)
        if path.startswith("sys/internal/ui/mounts/"):
            return self._mount_description(request, namespace, path.removeprefix("sys/internal/ui/mounts/"))
        login = self._login(request, namespace, path)
        if login is not None:
            return login
        token = self._token(request)
        self._check(token, namespace, path, request)
        if path.startswith("auth/token/"):
            return self._token_endpoint(request, namespace, token, path.removeprefix("auth/token/"))
        if path.startswith("sys/"):
            return self._system(request, namespace, token, path.removeprefix("sys/"))
        if path.startswith("auth/"):
            return self._login_role_endpoint(request, namespace, path.removeprefix("auth/"))
        found = mounted_at(namespace.mounts, path)
        if found is None:
            raise no_route(path)
        mount, rest = found
        engine = engines.KV2 if mount.is_kv2 else engines.ENGINES.get(mount.type)
        if engine is None:
            raise no_route(path)
        return engine(engines.Call(self, request, namespace, mount, rest, token))

    def _namespace_of(self, request: Request) -> tuple[Namespace, str]:
        """The namespace that header and path name together, and the path in it."""
        begun = request.namespace.strip("/")
        whole = f"{begun}/{request.path}" if begun else request.path
        fitting = [each for each in self.namespaces if not each or whole.startswith(f"{each}/")]
        found = max(fitting, key=len)
        if not f"{found}/".startswith(f"{begun}/") and begun:
            raise Refused(404, "namespace not found")
        return self.namespaces[found], whole[len(found) + 1 :] if found else whole

    def _token(self, request: Request) -> Token:
        if not request.token:
            raise Refused(403, "permission denied")
        token = self.tokens.get(request.token)
        if token is None:
            raise invalid_token()
        return token

    def _rules(self, token: Token) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The rules of a token, their paths as seen from the root namespace."""
        own = self.namespaces[token.namespace]
        for name in token.policies:
            for pattern, granted in own.policies.get(name, {}).items():
                yield own.absolute(pattern), granted

    def granted(self, token: Token, namespace: Namespace, path: str) -> frozenset[str]:
        absolute = namespace.absolute(path)
        if any(segments_match(pattern, absolute) for pattern in self.denied):
            return frozenset()
        if not f"{namespace.path}/".startswith(f"{token.namespace}/") and token.namespace:
            return frozenset()
        return frozenset({"root"}) if token.is_root else capabilities(self._rules(token), absolute)

    def _check(self, token: Token, namespace: Namespace, path: str, request: Request) -> None:
        allowed = self.granted(token, namespace, path)
        wanted = {"update", "create"} if request.operation == "write" else {request.operation}
        if request.operation == "write":
            found = mounted_at(namespace.mounts, path)
            if found is not None:
                wanted = {"create" if engines.is_new(*found) else "update"}
        if "root" not in allowed and not wanted & allowed:
            raise permission_denied()

    # Endpoints

    def _health(self) -> Answer:
        status = 503 if self.sealed else HEALTH[self.role]
        return Answer(
            status,
            {
                "initialized": True,
                "sealed": self.sealed,
                "standby": self.sealed or self.role != "active",
                "performance_standby": self.role == "performance-standby",
                "replication_performance_mode": "disabled",
                "replication_dr_mode": "secondary" if self.role == "disaster-recovery" else "disabled",
                "server_time_utc": int(self.now()),
                "version": "1.20.4",
                "enterprise": len(self.namespaces) > 1,
                "cluster_name": "vault-cluster-stand-in",
                "cluster_id": "0b1e1a3c-9a4e-4d3a-8c1b-6c1d0a5a7f00",
            },
        )

    def _seal_status(self) -> Answer:
        return Answer(
            200,
            {
                "type": "shamir",
                "initialized": True,
                "sealed": self.sealed,
                "t": 1,
                "n": 1,
                "progress": 0,
                "nonce": "",
                "version": "1.20.4",
                "migration": False,
                "recovery_seal": False,
                "storage_type": "inmem",
            },
        )

    def _leader(self) -> Answer:
        return Answer(200, {"ha_enabled": False, "is_self": self.role == "active", "leader_address": ""})

    def _mount_description(self, request: Request, namespace: Namespace, path: str) -> Answer:
        # Vault answers alike where there is no such mount, so that nobody learns their names.
        denied = Refused(
            403,
            "preflight capability check returned 403, please ensure client's policies grant access to path "
            f'"{path.strip("/")}/"',
        )
        token = self._token(request)
        found = mounted_at(namespace.mounts, path)
        asked = namespace.absolute(f"sys/internal/ui/mounts/{path}")
        if found is None or any(segments_match(pattern, asked) for pattern in self.denied):
            raise denied
        mount = namespace.absolute(f"{found[0].path}/")
        inside = f"{namespace.path}/".startswith(f"{token.namespace}/") or not token.namespace
        open_to = any(reaches(pattern, mount) and "deny" not in some for pattern, some in self._rules(token))
        if not inside or not (token.is_root or open_to):
            raise denied
        return success(found[0].description())

    def _login(self, request: Request, namespace: Namespace, path: str) -> Answer | None:
        if not path.startswith("auth/") or not path.endswith("/login") or request.operation != "write":
            return None
        mount = namespace.auths.get(path.removeprefix("auth/").removesuffix("/login"))
        if mount is None:
            return None  # As any path, then: without a token it is denied.
        asked = namespace.absolute(path)
        if any(segments_match(pattern, asked) for pattern in self.denied):
            raise permission_denied()
        role = engines.LOGINS[mount.type](mount, request.body)
        token = self.make_token(
            role.policies,
            namespace=namespace.path,
            path=path,
            ttl=role.ttl,
            max_ttl=role.max_ttl,
            period=role.period,
            renewable=role.renewable,
        )
        token.meta = {"role_name": role.name} if mount.type == "approle" else {"role": role.name}
        return success(auth=self.auth(token))

    def auth(self, token: Token) -> dict[str, Any]:
        return {
            "client_token": token.id,
            "accessor": token.accessor,
            "policies": list(token.policies),
            "token_policies": list(token.policies),
            "metadata": token.meta,
            "lease_duration": 0 if token.expires_at is None else round(token.expires_at - self.now()),
            "renewable": token.renewable,
            "entity_id": "",
            "token_type": "service",
            "orphan": True,
            "mfa_requirement": None,
            "num_uses": 0,
        }

    def _described(self, token: Token) -> dict[str, Any]:
        ends = token.expires_at
        described = {
            "accessor": token.accessor,
            "creation_time": int(token.made_at),
            "creation_ttl": round(token.ttl),
            "display_name": "root" if token.is_root else token.path.removeprefix("auth/").split("/")[0],
            "entity_id": "",
            "expire_time": None if ends is None else timestamp(ends),
            "explicit_max_ttl": 0,
            "id": token.id,
            "issue_time": timestamp(token.made_at),
            "meta": token.meta,
            "num_uses": 0,
            "orphan": True,
            "path": token.path,
            "policies": list(token.policies),
            "renewable": token.renewable,
            "ttl": 0 if ends is None else round(ends - self.now()),
            "type": "service",
        }
        if token.period:
            described["period"] = round(token.period)
        if token.namespace:
            described["namespace_path"] = f"{token.namespace}/"
        return described

    def _token_endpoint(self, request: Request, namespace: Namespace, token: Token, name: str) -> Answer:
        body = request.body
        match name:
            case "lookup-self":
                return success(self._described(token))
            case "renew-self":
                token.renew(self.now(), seconds_of(body.get("increment", 0)))
                return success(auth=self.auth(token))
            case "revoke-self":
                self.end_token(token)
                return Answer(204)
            case "create" | "create-orphan":
                made = self.make_token(
                    _names(body.get("policies")) or token.policies,
                    namespace=namespace.path,
                    ttl=seconds_of(body.get("ttl")),
                    max_ttl=seconds_of(body.get("explicit_max_ttl")),
                    period=seconds_of(body.get("period")),
                    renewable=body.get("renewable", True) in (True, "true"),
                )
                return success(auth=self.auth(made))
            case "lookup" | "revoke":
                other = self.tokens.get(str(body.get("token")))
                if other is None:
                    raise Refused(403, "bad token")
                if name == "lookup":
                    return success(self._described(other))
                self.end_token(other)
                return Answer(204)
        raise no_route(f"auth/token/{name}")

    def _login_role_endpoint(self, request: Request, namespace: Namespace, path: str) -> Answer:
        found = mounted_at(namespace.auths, path)
        if found is None or found[0].type != "approle":
            raise no_route(f"auth/{path}")
        mount, rest = found
        match rest.split("/"), request.operation:
            case ["role", name], "write":
                body = request.body
                mount.logins[name] = LoginRole(
                    name,
                    _names(body.get("token_policies")),
                    seconds_of(body.get("token_ttl")),
                    seconds_of(body.get("token_max_ttl")),
                    seconds_of(body.get("token_period")),
                )
                return Answer(204)
            case ["role", name, "role-id"], "read" if name in mount.logins:
                return success({"role_id": mount.logins[name].role_id})
            case ["role", name, "secret-id"], "write" if name in mount.logins:
                made = str(uuid.uuid4())
                mount.logins[name].secret_ids[made] = 0
                return success({"secret_id": made, "secret_id_accessor": str(uuid.uuid4()), "secret_id_ttl": 0})
        raise no_route(f"auth/{path}")

    def _system(self, request: Request, namespace: Namespace, token: Token, path: str) -> Answer:
        body, writes = request.body, request.operation == "write"
        name = path.split("/", 1)[-1]
        if path in ("leases/renew", "leases/revoke", "leases/lookup"):
            return engines.lease_endpoint(self, path.removeprefix("leases/"), body)
        if path == "capabilities-self" and writes:
            granted = {each: sorted(self.granted(token, namespace, each)) or ["deny"] for each in body["paths"]}
            return success({**granted, "capabilities": next(iter(granted.values()), [])} | granted)
        if path.startswith("mounts/") and request.operation in ("write", "delete"):
            if writes:
                options = body.get("options")
                self.mount(name, str(body["type"]), options if isinstance(options, dict) else None, namespace.path)
            else:
                namespace.mounts.pop(name.strip("/"), None)
            return Answer(204)
        if path.startswith("auth/") and request.operation in ("write", "delete"):
            if writes:
                namespace.auths[name] = Mount(name, str(body["type"]))
            else:
                namespace.auths.pop(name, None)
            return Answer(204)
        if path.startswith(("policy/", "policies/acl/")) and request.operation in ("write", "delete"):
            name = path.rsplit("/", 1)[-1]
            if writes:
                namespace.policies[name] = _rules_of(str(body.get("policy", "")))
            else:
                namespace.policies.pop(name, None)
            return Answer(204)
        if path.startswith("namespaces/") and request.operation in ("write", "delete"):
            absolute = namespace.absolute(name)
            if writes:
                self.namespace(absolute)
                return success({"id": secrets.token_hex(3), "path": f"{absolute}/"})
            self.namespaces.pop(absolute, None)
            return Answer(204)
        raise Refused(404, "1 error occurred:\n\t* unsupported path\n\n")


def _names(given: object) -> tuple[str, ...]:
    """A list, which may be written with commas."""
    if isinstance(given, str):
        return tuple(each for each in given.split(",") if each)
    return tuple(given) if isinstance(given, list) else ()


def _rules_of(policy: str) -> dict[str, tuple[str, ...]]:
    """A policy's text, in either of Vault's forms, and even base64."""
    if not policy.lstrip().startswith(("path", "{", "#")):
        policy = base64.b64decode(policy).decode()
    if policy.lstrip().startswith("{"):
        return {path: tuple(rule["capabilities"]) for path, rule in json.loads(policy)["path"].items()}
    return {match["path"]: tuple(re.findall(r'"([^"]+)"', match["granted"])) for match in _HCL_RULE.finditer(policy)}
