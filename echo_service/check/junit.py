"""The results as JUnit's XML, as CI systems read it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from echo_service.check.judge import Verdict
from echo_service.check.report import counts, observed, printable, transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.check.run import Result


def junit(url: str, results: Sequence[Result], error: str = "") -> str:
    """A test suite: failed checks are failures, skipped ones skipped.

    A non-strict one passes, as it does for the exit code, with the reason as its output.
    ``error`` is why nothing was checked, if nothing was.
    """
    number = counts(results)
    attributes = {
        "name": f"echo-service check {url}",
        "tests": str(len(results) + bool(error)),
        "failures": str(number[Verdict.FAIL]),
        "errors": str(int(bool(error))),
        "skipped": str(number[Verdict.SKIPPED]),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", attributes)
    for result in results:
        _case(suite, result)
    if error:
        case = ET.SubElement(suite, "testcase", classname="check", name="connection", time="0.000")
        ET.SubElement(case, "error", message=error)
    ET.indent(suites)
    return printable(ET.tostring(suites, encoding="unicode", xml_declaration=True))


def _case(suite: ET.Element, result: Result) -> None:
    check, verdict = result.check, result.judgement.verdict
    name = check.name.partition(".")[2]
    times = f"{result.seconds:.3f}"
    case = ET.SubElement(suite, "testcase", classname=check.area, name=name, time=times)
    told = f"{check.clause}: expected {check.expected}; observed {observed(result)}"
    if verdict is Verdict.FAIL:
        ET.SubElement(case, "failure", message=told).text = "\n".join(transcript(result))
    elif verdict is Verdict.SKIPPED:
        ET.SubElement(case, "skipped", message=told)
    elif verdict is Verdict.NON_STRICT:
        ET.SubElement(case, "system-out").text = f"non-strict: {told}"
