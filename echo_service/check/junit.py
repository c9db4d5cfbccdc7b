"""The results as JUnit's XML, as CI systems read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from echo_service.check.judge import Verdict
from echo_service.check.report import counts, observed, transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.check.run import Result

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that XML 1.0 does not have, which a peer may send in a reason (2.2)."""


def junit(url: str, results: Sequence[Result]) -> str:
    """A test suite: failed checks are failures, skipped ones skipped.

    A non-strict one passes, as it does for the exit code, with the reason as its output.
    """
    number = counts(results)
    attributes = {
        "name": f"echo-service check {url}",
        "tests": str(len(results)),
        "failures": str(number[Verdict.FAIL]),
        "errors": "0",
        "skipped": str(number[Verdict.SKIPPED]),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", attributes)
    for result in results:
        _case(suite, result)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True)


def _case(suite: ET.Element, result: Result) -> None:
    check, verdict = result.check, result.judgement.verdict
    name = check.name.partition(".")[2]
    times = f"{result.seconds:.3f}"
    case = ET.SubElement(suite, "testcase", classname=check.area, name=name, time=times)
    told = _clean(f"{check.clause}: expected {check.expected}; observed {observed(result)}")
    if verdict is Verdict.FAIL:
        ET.SubElement(case, "failure", message=told).text = _clean("\n".join(transcript(result)))
    elif verdict is Verdict.SKIPPED:
        ET.SubElement(case, "skipped", message=told)
    elif verdict is Verdict.NON_STRICT:
        ET.SubElement(case, "system-out").text = f"non-strict: {told}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
