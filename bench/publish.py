"""Puts what was measured into `docs/benchmarks.md`, between its two marks, and the plots beside it."""

import loads
import report
import wan

# What is between them is this program's to write.
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def publish(results, docs):
    page = docs / "benchmarks.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    plots = docs / "benchmarks"
    plots.mkdir(exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    drawn = report.plot(results, plots)
    page.write_text(before + BEGIN + measured(results, drawn) + END + after)


def measured(results, drawn):
    parts = [about(results["about"]), goals(results), long_way(results), memory(results), absent(results), "## Plots"]
    parts += [f"![{title}](benchmarks/{name})" for title, name in drawn]
    parts += ["## All figures", *tables(results)]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n\n"


def about(about):
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    network = ", ".join(f"{name} {value}" for name, value in about["network"].items())
    return (
        f"{about['date']}, commit {about['commit']}, with `{about['command']}`: {about['rounds']} rounds of {about['seconds']} s each (a long way: as said above).\n"
        f"{about['machine']}. {network}.\n{versions}."
    )


def goals(results):
    lines = ["## Goals", "", "| | measured | goal | |", "|---|---:|---:|---|"]
    for text, value, sign, goal, said in report.goals(results):
        sign = {"<=": "at most", ">=": "at least"}[sign]
        lines.append(f"| {text} | {report.number(value)} | {sign} {goal:g} | {said} |")
    return "\n".join(lines)


def tables(results):
    for name, load in report.by_name().items():
        if name not in results["figures"] or load in wan.LOADS:
            continue
        less = "" if load.more else ", less is better"
        lines = [f"### {name}", "", f"| | {load.unit}{less} | from | to | CPU {loads.cpu_unit(load)} | p50, p99, p99.9 in ms |", "|---|---:|---:|---:|---:|---:|"]
        for peer in results["figures"][name]:
            told, cpu = report.values(results, load, peer), report.median(report.cpus(results, load, peer))
            spread = [report.number(it) for it in (min(told), max(told))] if told else ["failed", ""]
            times = " / ".join(report.number(it / 1e3) for it in report.quantiles(results, load, peer))
            lines.append(f"| {peer} | {report.number(report.median(told))} | {' | '.join(spread)} | {report.number(cpu)} | {times} |")
        yield "\n".join(lines)


def long_way(results):
    measured = [load for load in wan.LOADS if load.name in results["figures"]]
    if not measured:
        return ""
    who = list(results["figures"][measured[0].name])
    figures = results["figures"]
    lines = ["## A long way: milliseconds", "", f"| | {' | '.join(who)} |", "|---|" + "---:|" * len(who)]
    for load in measured:
        told = [report.values(results, load, peer) if peer in figures[load.name] else None for peer in who]
        shown = [f"{report.number(report.median(it))} ({report.number(min(it))} to {report.number(max(it))})" if it else ("failed" if it == [] else "") for it in told]
        lines.append(f"| {load.name.removeprefix('wan, ')} | {' | '.join(shown)} |")
    return "\n".join(lines)


def memory(results):
    if not results["memory"]:
        return ""
    lines = ["## Memory of idle sessions", "", "| | |", "|---|---|"]
    lines += [f"| {peer} | {report.memory_line(took)} |" for peer, took in results["memory"].items()]
    return "\n".join(lines)


def absent(results):
    return "\n".join(f"Without {peer}: {why}." for peer, why in results["missing"].items())
