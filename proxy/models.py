"""`GET /v1/models` and `GET /v1/models/{id}`: what this caller may ask for by name."""

from urllib.parse import unquote

import msgspec

from core.errors import CallerError, ModelNotFound
from core.headers import Headers
from core.identity import ApiToken
from proxy.dataplane import DataPlane
from proxy.endpoints import Endpoint, Service
from routing.plan import RouteQuery


class _Model(msgspec.Struct):
    id: str
    created: int
    owned_by: str
    object: str = "model"


class _List(msgspec.Struct):
    data: list[_Model]
    object: str = "list"


def answer(plane: DataPlane, token: ApiToken, path: str, endpoint: Endpoint) -> bytes:
    """The body of the answer, in OpenAI's form.

    Raises:
        ModelNotFound: the id is not served, or not to this caller.
    """
    created = int(plane.built_at)
    if endpoint.service is Service.LIST_MODELS:
        owners = {model.id: model.owned_by for model in plane.router.models()}
        plane.discovered.asked()
        for model in plane.discovered.models:
            owners.setdefault(model.id, model.owned_by)
        listed = [
            _Model(id=name, created=created, owned_by=owner)
            for name, owner in owners.items()
            if token.allows_model(name)
        ]
        return msgspec.json.encode(_List(data=listed))
    name = unquote(path.removeprefix("/v1/models/"))
    owner = _owner(plane, token, name)
    if owner is None:
        raise ModelNotFound(f"the model `{name[:256]}` does not exist or is not open to you", param="model")
    return msgspec.json.encode(_Model(id=name, created=created, owned_by=owner))


def _owner(plane: DataPlane, token: ApiToken, name: str) -> str | None:
    """Who serves ``name``: the listed owner, or the first target of a name that only a glob, route or prefix serves."""
    if not token.allows_model(name):
        return None
    for model in plane.router.models():
        if model.id == name:
            return model.owned_by
    query = RouteQuery(
        model=name, path="/v1/chat/completions", token=token.name, headers=Headers(), stream=False, provider=None
    )
    try:
        plan = plane.router.resolve(query)
    except CallerError:
        return None
    return plan.first.targets[0].provider
