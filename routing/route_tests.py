"""`route_tests`: requests with a known answer, which a configuration must resolve before it is put in force."""

from config.faults import Fault, Path, did_you_mean
from config.schema import Config, TestExpectation, TestRequest
from core.errors import CallerError
from core.headers import Headers
from routing.plan import RouteQuery
from routing.router import Router

PROVIDER_HEADER = "x-sluice-provider"


def run_route_tests(config: Config, router: Router) -> list[Fault]:
    """A fault for each expectation that does not hold.

    A request must resolve to one of the targets that its first group may begin with: the first one under the strategy
    `first`, any of them under the others. What a token may use is not routing's matter and is not tested.
    """
    faults: list[Fault] = []
    tokens = {token.name for token in config.tokens}
    for place, test in enumerate(config.route_tests):
        token = test.request.token
        if token is not None and token not in tokens:
            message = f"no token is named `{token}`{did_you_mean(token, tokens)}"
            faults.append(Fault(("route_tests", place, "request", "token"), message))
        if test.expect == TestExpectation():
            message = "expects nothing, so it cannot fail: give `provider`, `model`, `route` or `error`"
            faults.append(Fault(("route_tests", place, "expect"), message))
            continue
        faults += _run(router, test.request, test.expect, ("route_tests", place, "expect"))
    return faults


def _run(router: Router, request: TestRequest, expect: TestExpectation, path: Path) -> list[Fault]:
    headers = Headers.parse(request.headers.items())
    query = RouteQuery(
        model=request.model,
        path=request.path,
        token=request.token,
        headers=headers,
        stream=request.stream,
        provider=headers.get(PROVIDER_HEADER),
    )
    asked = f"a request for `{request.model}`" if request.model is not None else "a request without a model"
    try:
        plan = router.resolve(query)
    except CallerError as error:
        if expect.error == error.client_code:
            return []
        if expect.error is not None:
            message = f"{asked} is refused with `{error.client_code}`, not `{expect.error}`"
            return [Fault((*path, "error"), message)]
        return [Fault(path, f"{asked} is refused with `{error.client_code}`: {error.message}")]
    if expect.error is not None:
        message = f"{asked} is not refused with `{expect.error}`: it goes to {plan.first.targets[0]}"
        return [Fault((*path, "error"), message)]
    faults: list[Fault] = []
    if expect.route is not None and expect.route != plan.route:
        taken = f"the route `{plan.route}`" if plan.route is not None else f"no route ({plan.step.value})"
        faults.append(Fault((*path, "route"), f"{asked} is taken by {taken}, not by the route `{expect.route}`"))
    beginnings = plan.first.targets[:1] if plan.first.strategy == "first" else plan.first.targets
    fitting = [target for target in beginnings if expect.provider in (None, target.provider)]
    shown = ", ".join(str(target) for target in beginnings)
    if not fitting:
        faults.append(Fault((*path, "provider"), f"{asked} goes to {shown}, not to the provider `{expect.provider}`"))
    elif expect.model is not None and all(target.model != expect.model for target in fitting):
        faults.append(Fault((*path, "model"), f"{asked} goes to {shown}, not to the model `{expect.model}`"))
    return faults
