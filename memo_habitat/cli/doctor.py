"""`memo-habitat doctor`: whether this machine is ready, and what to do about what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from memo_habitat.cli import doctor_machine, doctor_packages
from memo_habitat.cli.common import flag
from memo_habitat.cli.doctor_packages import Check, Impaired
from memo_habitat.errors import UserError

MISSING = 1
OK, WARN, FAIL = "OK", "WARN", "FAIL"
CHECKS: Mapping[str, Check] = {**doctor_packages.CHECKS, **doctor_machine.CHECKS}


@dataclass(frozen=True)
class Finding:
    """What a check found; where it is not OK, `says` ends with the remedy."""

    check: str
    status: str
    says: str


def doctor(
    as_json: Annotated[bool, flag("--json", "Print one JSON object.")] = False,
) -> None:
    """Say what is installed, found and missing; exits with 1 where training would not work.

    Lines begin with OK; WARN is slower or weaker than need be, FAIL is missing or broken.
    """
    findings = []
    for finding in examine(CHECKS):
        findings.append(finding)
        if not as_json:
            print(f"{finding.status:5}{finding.check:19}{finding.says}", flush=True)
    failed = [finding.check for finding in findings if finding.status == FAIL]
    if as_json:
        print(json.dumps({"ready": not failed, "checks": list(map(asdict, findings))}))
    if failed:
        raise typer.Exit(MISSING)


def examine(checks: Mapping[str, Check]) -> Iterator[Finding]:
    """Make the checks one after the other; none that fails keeps others from being made."""
    for name, check in checks.items():
        status, says = OK, ""
        try:
            says = check()
        except Impaired as warning:
            status, says = WARN, str(warning)
        except UserError as error:
            status, says = FAIL, str(error)
        except Exception as error:  # noqa: BLE001 what a broken package raises when it is imported
            again = "install what it names again, or memo-habitat into a new environment"
            status, says = FAIL, f"{type(error).__name__}: {error}; {again}"
        yield Finding(name, status, " ".join(says.split()))
