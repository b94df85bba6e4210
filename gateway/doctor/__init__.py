"""``./sluice doctor``: everything that a gateway depends on, looked at, with a mend for each fault.

Each area has a module here, and each check is a function of a :class:`gateway.doctor.context.Context` that gives
findings. Nothing that it asks of others costs anything, and nothing that it prints is secret.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes besides `--config` and `--env-file`."""
    parser.add_argument("--offline", action="store_true", help="leave out what needs a network")
    parser.add_argument(
        "--token-env",
        metavar="NAME",
        help="a variable that holds a token: to try a stream of the `echo` provider through server.public_url",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def doctor_command(options: argparse.Namespace, path: Path) -> int:
    """Print the report on the document at ``path``; 1 when there is a fault."""
    # A gateway that serves has no use for what the checks import: some 20 ms, and memory for as long as it runs.
    from gateway.doctor.checks import run_checks  # noqa: PLC0415  see above

    report = run_checks(
        path,
        None if options.env_file is None else Path(options.env_file),
        offline=options.offline,
        token_env=options.token_env,
    )
    print(report.json() if options.json else report.text(), flush=True)
    return 0 if report.ok else 1
