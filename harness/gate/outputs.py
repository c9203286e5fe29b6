"""A check as text, Markdown, JUnit XML and GitHub annotations; names in it are untrusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from harness.averaging import TITLES
from harness.gate.verdict import Check, Judged
from harness.text import columns, p_value, points, wrapped

#: Characters that XML 1.0 cannot hold.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEADS = (
    *("Model", "Score", "Questions", "Baseline", "Current", "Change", "Interval", "p (adj.)", "Margin"),
    *("Verdict", "Because"),
)


def figures(one: Judged) -> tuple[str, ...]:
    """What a line of every table says of one score."""
    test = one.test
    return (
        one.model,
        TITLES[test.metric],
        f"{test.n:,}",
        f"{test.baseline:.2f}",
        f"{test.current:.2f}",
        f"{test.delta:+.2f}",
        f"{test.ci_low:+.2f} to {test.ci_high:+.2f}",
        p_value(test.p_adjusted),
        f"{one.margin:g}",
        one.verdict,
        one.reason,
    )


def sentences(check: Check) -> Iterator[str]:
    """What stands under every table."""
    policy = check.policy
    sure = f"{100 * (1 - policy.alpha):g} %"
    yield (
        f"Scores in percent by the rule {policy.rule}, changes in points with {sure} intervals; resampled: "
        f"whole {policy.cluster}s. p-values are adjusted for the number of tests."
    )
    findable = [one for one in check.judged if one.test.metric == "average" and one.detectable is not None]
    for one in findable:
        drop = points(round(one.detectable or 0.0, 2))
        yield f"{one.model}: a true drop of the average by {drop} is found 4 times in 5."
    yield from check.notes


def summing_up(check: Check) -> str:
    """The verdict in one line."""
    counts = {
        name: sum(one.verdict == name for one in check.judged) for name in ("regression", "inconclusive")
    }
    total = len(check.judged)
    if check.verdict == "pass":
        return f"pass: {total} of {total} scores are as good as the baseline's, within their margins."
    told = {"regression": "worse", "inconclusive": "not decided"}
    parts = [f"{count} of {total} scores {told[name]}" for name, count in counts.items() if count]
    if check.incomplete:
        parts.append("the run is incomplete")
    return f"{check.verdict}: {', '.join(parts)}."


def changed(one: Judged) -> Iterator[str]:
    """The images that changed most, a line each."""
    for change in one.changes:
        yield f"{change.key}: {change.lost} lost, {change.gained} gained ({'; '.join(change.letters)})"


def failure(one: Judged) -> str:
    """What a test says that did not pass."""
    test, title = one.test, TITLES[one.test.metric]
    lines = [
        f"{test.delta:+.2f} points, {one.verdict}: {one.model}, {title}: {one.reason}",
        f"  {test.baseline:.2f} to {test.current:.2f}, interval {test.ci_low:+.2f} to {test.ci_high:+.2f}, "
        f"margin {one.margin:g}, adjusted p {p_value(test.p_adjusted)}",
        f"  {test.n:,} questions: {test.lost:,} lost, {test.gained:,} gained",
    ]
    if one.changes:
        lines.append("  images that changed most:")
        lines += [f"    {line}" for line in changed(one)]
    return "\n".join(lines)


def as_text(check: Check) -> str:
    """For the terminal."""
    rows = [_HEADS, *(figures(one) for one in check.judged)]
    lines = [columns(rows, 2, _HEADS.index("Verdict")), ""]
    for one in check.judged:
        if one.verdict == "regression":
            lines.append(f"{one.model}, {TITLES[one.test.metric]}: images that changed most")
            lines += [f"  {line}" for line in changed(one)]
            lines.append("")
    return "\n".join([*lines, *map(wrapped, sentences(check)), "", wrapped(summing_up(check))])


def as_markdown(check: Check) -> str:
    """For a job's summary on GitHub."""

    def escaped(text: str) -> str:
        flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return re.sub(r"([\\|*_`\[\]])", r"\\\1", flat)

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(escaped(cell) for cell in cells) + " |"

    rules = ":---|:---|---:|---:|---:|---:|:---:|---:|---:|:---|:---"
    lines = [f"### emit-bench check: {check.verdict}", "", escaped(summing_up(check)), ""]
    lines += [line(_HEADS), f"|{rules}|", *(line(figures(one)) for one in check.judged), ""]
    for one in check.judged:
        if one.verdict == "regression" and one.changes:
            head = escaped(f"{one.model}, {TITLES[one.test.metric]}: images that changed most")
            lines += [f"<details><summary>{head}</summary>", ""]
            lines += [f"- {escaped(told)}" for told in changed(one)]
            lines += ["", "</details>", ""]
    lines += [f"<sub>{escaped(sentence)}</sub>  " for sentence in sentences(check)]
    return "\n".join(lines) + "\n"


def as_junit(check: Check) -> str:
    """JUnit XML: a suite a model, a case a score; a regression is a failure, inconclusive an error.

    An error, because what could not be decided has not passed, and servers show errors apart from failures.
    """
    root = ElementTree.Element("testsuites", name="emit-bench check")
    for model in dict.fromkeys(one.model for one in check.judged):
        judged = [one for one in check.judged if one.model == model]
        counts = {
            "tests": len(judged),
            "failures": sum(one.verdict == "regression" for one in judged),
            "errors": sum(one.verdict == "inconclusive" for one in judged),
            "skipped": 0,
        }
        attributes = {name: str(count) for name, count in counts.items()}
        attributes |= {"name": _xml(model), "time": "0"}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for one in judged:
            metric = one.test.metric
            case = ElementTree.SubElement(
                suite, "testcase", classname=_xml(f"emit-bench.{model}"), name=metric, time="0"
            )
            told = "; ".join(
                f"{head}: {figure}" for head, figure in zip(_HEADS[2:], figures(one)[2:], strict=True)
            )
            if one.verdict != "pass":
                kind = "failure" if one.verdict == "regression" else "error"
                message = _xml(f"{TITLES[metric]} {one.test.delta:+.2f} points: {one.reason}")
                fault = ElementTree.SubElement(case, kind, message=message, type=one.verdict)
                fault.text = _xml("\n".join([told, *changed(one)]))
            else:
                ElementTree.SubElement(case, "system-out").text = _xml(told)
    if check.incomplete:
        suite = ElementTree.SubElement(
            root, "testsuite", name="run", tests="1", failures="0", errors="1", skipped="0", time="0"
        )
        case = ElementTree.SubElement(suite, "testcase", classname="emit-bench", name="complete", time="0")
        ElementTree.SubElement(case, "error", message=_xml("; ".join(check.notes)), type="incomplete")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def refusal(error: str) -> str:
    """Why nothing could be judged, as GitHub's workflow command."""
    return f"::error title=emit-bench check::{_data(error)}"


def workflow_commands(check: Check) -> Iterator[str]:
    """GitHub's workflow commands: an error a regression, a warning what could not be decided."""
    for one in check.judged:
        if one.verdict != "pass":
            level = "error" if one.verdict == "regression" else "warning"
            title = _data(f"emit-bench: {one.model}, {TITLES[one.test.metric]}", escape=":,")
            told = _data(f"{one.verdict}, {one.test.delta:+.2f} points: {one.reason}")
            yield f"::{level} title={title}::{told}"
    if check.incomplete:
        yield f"::warning title=emit-bench::{_data('; '.join(check.notes))}"


def _data(text: str, escape: str = "") -> str:
    r"""Text inside a workflow command.

    >>> _data("50 %\n::x", escape=":")
    '50 %25%0A%3A%3Ax'
    """
    for char in ("%", "\r", "\n", *escape):
        text = text.replace(char, f"%{ord(char):02X}")
    return text
