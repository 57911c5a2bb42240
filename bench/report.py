"""What was measured, for people: a table, the goals, and plots."""

import html
import statistics

import loads
import peers
import wan

GOOD, BAD = "reached", "not reached"

# Of the plots: each peer has its own in all of them.
COLOURS = dict(
    zip(
        (kind.name for kind in peers.PEERS),
        ("#777777", "#c05640", "#c98a1b", "#3a6ea5", "#6fa0d0", "#5b8c5a", "#7b3fa0", "#b07cc6", "#a03a50", "#4a2060"),
        strict=True,
    )
)


def by_name():
    return {load.name: load for load in [*loads.LOADS, *wan.LOADS]}


def values(results, load, peer):
    rounds = results["figures"].get(load.name, {}).get(peer, [])
    return [value for value in map(load.value, rounds) if value is not None]


def cpus(results, load, peer):
    rounds = results["figures"].get(load.name, {}).get(peer, [])
    told = [loads.cpu_per(load, figures) for figures in rounds if "error" not in figures]
    return [value for value in told if value is not None]


def median(numbers):
    return statistics.median(numbers) if numbers else None


def number(value):
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(results):
    lines = []
    for name, load in by_name().items():
        if name not in results["figures"]:
            continue
        lines.append(f"\n{name}, {load.unit}{'' if load.more else ' (less is better)'}")
        for peer in results["figures"][name]:
            told, cpu = values(results, load, peer), median(cpus(results, load, peer))
            spread = f"{number(min(told))} to {number(max(told))}" if told else "failed"
            cost = f"  CPU {number(cpu)} {loads.cpu_unit(load)}" if cpu is not None else ""
            lines.append(f"  {peer:<24}{number(median(told)):>9}   {spread:<20}{cost}")
    if results["memory"]:
        lines.append("\nmemory of idle sessions")
        for peer, took in results["memory"].items():
            lines.append(f"  {peer:<24}{memory_line(took)}")
    for peer, why in results["missing"].items():
        lines.append(f"\nwithout {peer}: {why}")
    return "\n".join(lines)


def memory_line(took):
    """KiB for each session, of each process, and what stays."""
    parts = []
    for index, role in enumerate(took["roles"]):
        before = took["before"][index]
        told = [f"{role}:"]
        for count in (key for key in took if key.isdigit()):
            of_all = took[count]
            told.append(f"{(of_all[index] - before) / 1024 / int(count):.2f} KiB at {count}" if of_all else f"failed at {count}")
        told.append(f"{(took['after'][index] - before) / 1048576:+.1f} MiB after")
        parts.append(" ".join(told))
    return ", ".join(parts)


def goals(results):
    """The goals of the project, each with what this run has of it, and whether that is enough."""
    known = by_name()

    def ratio(load, peer, other, of=values):
        one, another = (median(of(results, known[load], it)) for it in (peer, other))
        return one / another if one and another else None

    def per_session(peer):
        took = results["memory"].get(peer)
        if not took or not took.get("8000"):
            return None
        return (took["8000"][0] - took["before"][0]) / 1024 / 8000

    def left(peer):
        took = results["memory"].get(peer)
        return (took["after"][0] - took["before"][0]) / 1048576 if took else None

    ours, one_hop, tls = "relayserver", "relayserver, one hop", "relayserver, TLS"
    rathole, plain, splicing = "rathole", "haproxy", "haproxy, splicing"
    rows = [
        ("two hops: bulk, 1 connection, x rathole", ratio("bulk, 1", ours, rathole), ">=", 2.0),
        ("two hops: bulk, 8 connections, x rathole", ratio("bulk, 8", ours, rathole), ">=", 1.6),
        ("two hops: CPU per GB, x rathole", ratio("bulk, 8", ours, rathole, cpus), "<=", 0.35),
        ("two hops: 64-byte round trips on 64, x rathole", ratio("requests, 64 B, 64", ours, rathole), ">=", 1.15),
        ("two hops: new sessions, 32 at a time, x rathole", ratio("sessions, 32", ours, rathole), ">=", 1.5),
        ("one hop: bulk, 1 connection, x haproxy", ratio("bulk, 1", one_hop, plain), ">=", 1.5),
        ("one hop: bulk, 8 connections, x haproxy", ratio("bulk, 8", one_hop, plain), ">=", 1.5),
        ("one hop: bulk, 1 connection, x splicing haproxy", ratio("bulk, 1", one_hop, splicing), ">=", 1.0),
        ("one hop: bulk, 8 connections, x splicing haproxy", ratio("bulk, 8", one_hop, splicing), ">=", 1.0),
        ("one hop: CPU per GB on 8, x haproxy", ratio("bulk, 8", one_hop, plain, cpus), "<=", 0.4),
        ("one hop: CPU per GB on 8, x splicing haproxy", ratio("bulk, 8", one_hop, splicing, cpus), "<=", 0.95),
        ("one hop: 64-byte round trips on 64, x haproxy", ratio("requests, 64 B, 64", one_hop, plain), ">=", 1.0),
        ("one hop: their CPU, x haproxy", ratio("requests, 64 B, 64", one_hop, plain, cpus), "<=", 0.95),
        ("one hop: p99 of a lone round trip, x direct", lone(results, one_hop), "<=", 1.35),
        ("one hop: new sessions, 32 at a time, x haproxy", ratio("sessions, 32", one_hop, plain), ">=", 1.0),
        ("relay: KiB an idle session, of 8,000", per_session(ours), "<=", 2.5),
        ("relay: KiB an idle session over TLS, of 8,000", per_session(tls), "<=", 20.0),
        ("relay: MiB more after they have gone", left(ours), "<=", 2.0),
        *wan_goals(results, ratio),
    ]
    return [(*row, verdict(*row[1:])) for row in rows]


def goals_table(results):
    lines = [f"  {text:<52}{number(value):>8}   {sign} {goal:<6}{said}" for text, value, sign, goal, said in goals(results)]
    return "\n".join(["\ngoals", *lines])


def verdict(value, sign, goal):
    if value is None:
        return "not measured"
    # What is measured is not known to more than a hundredth.
    value = round(value, 2)
    return GOOD if (value >= goal if sign == ">=" else value <= goal) else BAD


def wan_goals(results, ratio):
    """What a long way must not cost."""
    first_byte = wan.name_of("first byte", 0)
    warm = median(values(results, by_name()[first_byte], "relayserver"))
    crowd = median(values(results, by_name()[wan.name_of("50 at once", 0)], "relayserver"))
    later = crowd - warm if crowd and warm else None
    # The client's handshake is a round trip of 50 ms, and each leg has another: 150 ms. A direct connection's are two of 100 ms, and have what
    # the line itself adds too.
    direct = ratio(first_byte, "relayserver", "direct")
    rows = [
        ("wan: first byte, x three quarters of a direct one", direct / 0.75 if direct else None, "<=", 1.0),
        ("wan: 50 at once, ms later than one", later, "<=", 50.0),
    ]
    for loss in wan.LOSSES:
        for kind in ("100 KB", "1 MB", "20 MB"):
            slower = ratio(wan.name_of(kind, loss), "relayserver", "rathole")
            rows.append((f"wan, {loss} % loss: {kind}, time x rathole", slower, "<=", 1.0))
    return rows


def lone(results, peer):
    """The 99th percentile of a lone round trip, against that of a direct connection."""
    rounds = results["figures"].get("requests, 64 B, 1", {})

    def p99(name):
        return median([it["micros"]["p99"] for it in rounds.get(name, []) if "error" not in it])

    one, direct = p99(peer), p99("direct")
    return one / direct if one and direct else None


def quantiles(results, load, peer):
    """The medians of its rounds; none of a load that has only bytes."""
    fine = [it["micros"] for it in results["figures"][load.name][peer] if "error" not in it and it["done"]]
    return [median([it[mark] for it in fine]) for mark in ("p50", "p99", "p99.9")] if fine else []


def plot(results, folder):
    """An SVG of bars with their spread for each load, and one of latencies. Gives their titles and names."""
    known = by_name()
    drawn = []
    groups = {}
    for name in results["figures"]:
        groups.setdefault(name.split(",")[0], []).append(known[name])
    for group, members in groups.items():
        name = f"{group.replace(' ', '-')}.svg"
        (folder / name).write_text(bars(results, group, members))
        drawn.append((group, name))
    if "requests, 64 B, 64" in results["figures"]:
        (folder / "latency.svg").write_text(latencies(results, "requests, 64 B, 64"))
        drawn.append(("latency of requests, 64 B, 64", "latency.svg"))
    return drawn


def bars(results, title, members):
    width, left, row, gap = 860, 200, 18, 34
    drawn, y = [], 40
    for load in members:
        told = {peer: values(results, load, peer) for peer in results["figures"][load.name]}
        most = max((max(it) for it in told.values() if it), default=1)
        scale = (width - left - 110) / most
        less = "" if load.more else ", less is better"
        drawn.append(f'<text x="8" y="{y}" class="head">{html.escape(load.name)}, {load.unit}{less}</text>')
        y += 8
        for peer, rounds in told.items():
            drawn.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(peer)}</text>')
            if rounds:
                middle, low, high = median(rounds), min(rounds), max(rounds)
                colour = COLOURS[peer]
                drawn.append(f'<rect x="{left}" y="{y + 2}" width="{middle * scale:.1f}" height="{row - 5}" fill="{colour}"/>')
                x1, x2, level = left + low * scale, left + high * scale, y + row / 2
                drawn.append(f'<path d="M{x1:.1f} {level}H{x2:.1f}M{x1:.1f} {level - 4}v8M{x2:.1f} {level - 4}v8" stroke="#222" fill="none"/>')
                drawn.append(f'<text x="{max(x2, left + middle * scale) + 6:.1f}" y="{y + 13}">{number(middle)}</text>')
            else:
                drawn.append(f'<text x="{left + 4}" y="{y + 13}">failed</text>')
            y += row
        y += gap
    return svg(width, y, title, drawn)


def latencies(results, name):
    """Each peer's quantiles, on a logarithmic scale."""
    from math import log10

    marks = ["p50", "p99", "p99.9", "max"]
    width, height, left, bottom = 860, 420, 70, 360
    told = {}
    for peer, rounds in results["figures"][name].items():
        fine = [it["micros"] for it in rounds if "error" not in it]
        if fine:
            told[peer] = [max(1, median([it[mark] for it in fine])) for mark in marks]
    low = min(min(it) for it in told.values())
    high = max(max(it) for it in told.values()) * 1.1
    span = log10(high) - log10(low) or 1
    at = lambda value: bottom - (log10(value) - log10(low)) / span * (bottom - 50)
    step = (width - left - 240) / (len(marks) - 1)
    drawn = [f'<text x="8" y="24" class="head">{html.escape(name)}: latency in ms (logarithmic)</text>']
    for index, mark in enumerate(marks):
        drawn.append(f'<text x="{left + index * step}" y="{bottom + 22}" text-anchor="middle">{mark}</text>')
    for decade in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000):
        if low <= decade <= high:
            drawn.append(f'<path d="M{left} {at(decade):.1f}H{width - 230}" stroke="#ddd"/>')
            drawn.append(f'<text x="{left - 8}" y="{at(decade) + 4:.1f}" text-anchor="end">{decade / 1000:g}</text>')
    for index, (peer, points) in enumerate(told.items()):
        colour = COLOURS[peer]
        line = " ".join(f"{left + number_ * step:.1f},{at(value):.1f}" for number_, value in enumerate(points))
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{width - 220}" y="{60 + index * 20}" fill="{colour}">{html.escape(peer)}</text>')
    return svg(width, height, name, drawn)


def svg(width, height, title, drawn):
    style = "text{font:12px sans-serif;fill:#222}.head{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )
