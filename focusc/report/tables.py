"""The tables that the commands print; each function takes plain data and returns what rich can print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from focusc.isa.errors import printable
from focusc.report.numbers import count, percent, ratio, seconds, si

if TYPE_CHECKING:
    from focusc.frontend import OpReport
    from focusc.ir import Diagnostic


def table(title: str, *columns: str, left: int = 1) -> Table:
    """An empty table in the house style: the first `left` columns are names, the others numbers."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < left else "right", no_wrap=index > 0)
    return made


def pairs(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values, two columns, no heading."""
    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    made.add_column()
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


def ops_table(report: OpReport, listed: str = "all") -> RenderableType:
    """Every node with its status, operators with their counts, then every problem in full.

    `listed` says which nodes get a line: "all", "unsupported" or "none". Problems that differ in their node only are
    one text.
    """
    parts: list[RenderableType] = []
    shown = [
        node for node in report.nodes if listed == "all" or (listed == "unsupported" and node.status != "supported")
    ]
    if shown:
        made = table("", "status", "operator", "node", "module", left=4)
        for node in shown:
            style = {"supported": "", "host": "yellow"}.get(node.status, "red" if node.problem is not None else "")
            made.add_row(*map(printable, (node.status, node.op_type, node.name, node.module_path)), style=style)
        parts.append(made)
    counts = report.counts()
    statuses = [s for s in STATUSES if s != "host" or any(s in found for found in counts.values())]
    made = table("", "operator", *statuses)
    for operator, found in counts.items():
        cells = [str(found.get(key, "")) for key in statuses]
        made.add_row(operator, *cells, style="" if set(found) == {"supported"} else "red")
    parts.append(made)
    on_host = [node.problem for node in report.nodes if node.problem and node.status == "host"]
    refused = [node.problem for node in report.nodes if node.problem and node.status != "host"]
    for text, places in (*_grouped(on_host, "host"), *_grouped([*report.problems, *refused])):
        parts.append(
            Text(
                text
                + (f"\n  and the same at {len(places)} more: {', '.join(places[:8])}" if places else "")
                + (" ..." if len(places) > 8 else "")
            )
        )
    parts += [Text(f"note: {note}", "dim") for note in report.notes]
    if report.layout is None:
        note = "note: no token layout in the metadata; concentration needs one (--visual, --grid, --query)"
        parts.append(Text(note, "dim"))
    else:
        facts = "; ".join(f"{name} {value}" for name, value in report.layout.items()) or "no visual tokens"
        parts.append(Text(f"token layout: {facts}", "dim"))
    verdict = "supported" if report.supported else "not supported"
    verdict += f" on {report.target}, concentrate {report.concentrate}" if report.target else ""
    if report.host is not None and report.host["segments"]:
        parts.append(Text(host_line(report.host)))
    parts.append(Text(f"{report.model}: opset {report.opset}, {len(report.nodes)} nodes, {verdict}", "bold"))
    return Group(*parts)


STATUSES = ("supported", "host", "unsupported", "unchecked")


def host_line(host: Mapping[str, Any]) -> str:
    """One line on what the host runs."""
    segments, nodes = host["segments"], host["nodes"]
    return (
        f"host: {count(segments)} segment{'s' * (segments != 1)} of {count(nodes)} op{'s' * (nodes != 1)}, "
        f"{percent(host['share'])} of the MACs"
    )


def _grouped(problems: Sequence[Diagnostic], kind: str = "error") -> list[tuple[str, list[str]]]:
    """Each different problem once, rendered at its first place, with its other places."""
    first: dict[tuple[str, str, str], tuple[str, list[str]]] = {}
    for problem in problems:
        key = (problem.code, problem.message, problem.hint)
        if key in first:
            first[key][1].append(problem.loc.origin() or problem.loc.position())
        else:
            first[key] = (problem.render(kind), [])
    return list(first.values())


def sites_table(sites: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Where a concentrating compile would gather and prune, and below it where it cannot, and why."""
    made = table("concentration sites", "layer", "kind", "site", "node", "rows", "columns", left=4)
    for site in sites:
        if site["kind"] != "none":
            made.add_row(*(str(site.get(key, "")) for key in ("layer", "kind", "site", "node", "rows", "columns")))
    absent = [site for site in sites if site["kind"] == "none"]
    if not absent:
        return made
    reasons: dict[tuple[str, str], list[str]] = {}
    for site in absent:
        reasons.setdefault((site["site"], site["why"]), []).append(str(site["layer"]))
    left = table("left out", "layers", "site", "why", left=3)
    for (name, why), layers in reasons.items():
        left.add_row(", ".join(layers), name, why)
    return Group(made, left)


def compile_table(summary: Mapping[str, Any]) -> RenderableType:
    """What was compiled, into what, and what each pass did."""
    rows = [
        ("program", f"{summary['path']}  {count(summary['bytes'])} bytes"),
        ("target", f"{summary['target']}  hardware {summary['hardware_digest'][:12]}"),
        ("concentrate", str(summary["concentrate"])),
        ("instructions", count(summary["instructions"])),
        ("constants", f"{count(summary['const_bytes'])} bytes"),
        ("activations", f"{count(summary['arena_bytes'])} bytes"),
        ("compile time", seconds(summary["seconds"])),
    ]
    host = summary["host"]
    notes = [Text(_host_note(host))] if host["segments"] else []
    made = table("passes", "pass", "time", "what it did", left=1)
    made.columns[2].justify = "left"
    for step in summary["passes"]:
        done = " ".join(f"{key}={value:g}" for key, value in step["counts"].items() if value)
        made.add_row(step["name"], seconds(step["seconds"]) if "seconds" in step else "", done)
    return Group(pairs("", rows), made, *notes)


def _host_note(host: Mapping[str, Any]) -> str:
    """What the host runs of a program, which nodes and why: a line for each reason."""
    lines = [host_line(host) + "; the accelerator waits meanwhile, and no cycles are counted for it"]
    for reason in host["reasons"]:
        nodes = reason["nodes"]
        more = f" and {len(nodes) - 4} more" if len(nodes) > 4 else ""
        lines.append(f"  {printable(', '.join(nodes[:4]))}{more}: {reason['message']} [{reason['code']}]")
    return "\n".join(lines)


def _macs(stats: Mapping[str, Any]) -> str:
    """The MACs done; what a dense run takes and the sparsity only if the program says what it should compute."""
    if not stats["macs_dense"]:
        return si(stats["macs"])
    return f"{si(stats['macs'])} of {si(stats['macs_dense'])} dense, sparsity {percent(stats['sparsity'])}"


def _host_cost(host: Mapping[str, Any]) -> str:
    """What the host did in a run, and that the accelerator's cycles and energy know nothing of it."""
    moved = f"{si(host['bytes']['in'], 'B')} in, {si(host['bytes']['out'], 'B')} out"
    spent = f", {seconds(host['seconds'])} in onnxruntime" if host["seconds"] is not None else ""
    clipped = host.get("clipped")
    spent += f", {count(clipped)} values beyond f16 clipped" if clipped else ""
    return f"{host_line(host).removeprefix('host: ')}, {moved}{spent}; not in cycles and energy"


def stats_table(stats: Mapping[str, Any], nodes: int = 10) -> RenderableType:
    """Cycles, energy and traffic of one run; engines, stalls, sites and the costliest source nodes."""
    energy, traffic = stats["energy_mj"], stats["dram_bytes"]
    cycles = max(stats["cycles"], 1)
    head = pairs(
        "",
        [
            (
                "cycles",
                f"{count(stats['cycles'])}  ({seconds(stats['time_s'])}, array model {stats.get('array', '?')})",
            ),
            ("MACs", _macs(stats)),
            (
                "energy",
                f"{energy['total']:.3f} mJ  (DRAM {energy['dram']:.3f}, SRAM {energy['sram']:.3f}, "
                f"core {energy['core']:.3f})",
            ),
            ("DRAM", f"read {si(traffic['read'], 'B')}, written {si(traffic['write'], 'B')}"),
            *([("host", _host_cost(stats["host"]))] if stats.get("host", {}).get("segments") else []),
        ],
    )
    engines = table("engines", "engine", "busy cycles", "of all")
    for name, busy in stats["engines"].items():
        engines.add_row(name, count(busy), percent(busy / cycles))
    stalls = table("stalls", "cause", "cycles", "of all")
    for name, lost in sorted(stats["stalls"].items(), key=lambda item: -item[1]):
        if lost:
            stalls.add_row(name, count(lost), percent(lost / cycles))
    parts: list[RenderableType] = [head, engines, stalls]
    if stats.get("sites"):
        parts.append(site_summary(stats["sites"]))
    costly = sorted(stats.get("nodes", ()), key=lambda node: -node.get("cycles", 0))[:nodes]
    if costly:
        made = table(
            f"costliest source nodes (of {len(stats['nodes'])})", "node", "op", "cycles", "of all", "DRAM", left=2
        )
        for node in costly:
            name = printable(node.get("path") or node.get("node") or "-")
            spent = node.get("cycles", 0)
            moved = node.get("dram_bytes", 0)
            moved = sum(moved.values()) if isinstance(moved, Mapping) else moved
            made.add_row(name, node.get("op", ""), count(spent), percent(spent / cycles), si(moved, "B"))
        parts.append(made)
    return Group(*parts)


def answers_table(rows: Sequence[Sequence[str | None]], who: Sequence[str]) -> Table:
    """Questions, the right answers if they are known, and what each of `who` said; wrong answers are marked."""
    known = any(row[1] is not None for row in rows)
    made = table("", "question", *(["answer"] if known else []), *who, left=1 + known + len(who))
    for question, right, *answers in rows:
        said = [a if right in (None, a) else f"{a} (wrong)" for a in answers]
        made.add_row(question, *([right or ""] if known else []), *said)
    return made


def rendered(part: RenderableType, width: int = 140) -> str:
    """Plain text of a table."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def site_summary(sites: Sequence[Mapping[str, Any]]) -> Table:
    """Per layer: tokens kept, and the share of vectors that stay unique at each SIC site."""
    names = list(dict.fromkeys(str(site["site"]) for site in sites))
    made = table(
        "concentration: tokens kept, and unique vectors of all vectors at each site", "layer", "tokens", *names
    )
    for layer in dict.fromkeys(site["layer"] for site in sites):
        here = {str(site["site"]): site for site in sites if site["layer"] == layer}
        first = next(iter(here.values()))
        shares = [percent(unique_share(here[name])) if name in here else "" for name in names]
        made.add_row(str(layer), f"{first['retained']} of {first['tokens']}", *shares)
    return made


def unique_share(site: Mapping[str, Any]) -> float:
    """Unique vectors of one site over all its vectors (retained rows x slots)."""
    total = site["retained"] * site["slots"] if "slots" in site else site.get("vectors", 0)
    unique = site.get("unique", 0)
    unique = sum(unique) if isinstance(unique, Sequence) else unique
    return unique / total if total else 1.0


def compare_table(found: Mapping[str, Any]) -> RenderableType:
    """One row a method; costs are means over the samples, speed-up and energy are against the first method."""
    title = f"{found['model']}: {found['samples']} samples, target {found['target']}, array {found['array']}"
    made = table(
        title,
        *("method", "accuracy", f"as {found.get('base', 'dense')}", "sparsity", "cycles", "time", "energy", "DRAM"),
        *("speed-up", "saves"),
    )
    for row in found["rows"]:
        cost = row.get("cycles")
        made.add_row(
            row["method"],
            _accuracy(row),
            percent(row["agreement"]) if row.get("agreement") is not None else "",
            percent(row["sparsity"]) if cost else "",
            count(cost) if cost else "",
            seconds(row["time_s"]) if cost else "",
            f"{row['energy_mj']:.2f} mJ" if cost else "",
            si(row["dram_bytes"], "B") if cost else "",
            ratio(row["speedup"]) if cost else "",
            ratio(row["energy_ratio"]) if cost else "",
        )
    notes = [Text(f"note: {note}", "dim") for note in (*found.get("notes", ()), *_host_notes(found["rows"]))]
    return Group(made, *notes)


def _host_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of each method's work no cycle, energy or speed-up counts; methods with the same are named together."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        if row.get("host", {}).get("segments"):
            lines.setdefault(host_line(row["host"]), []).append(row["method"])
    return [f"{line} ({', '.join(who)}); cycles, energy and speed-up are of the rest" for line, who in lines.items()]


def _accuracy(row: Mapping[str, Any]) -> str:
    if row.get("accuracy") is None:
        return ""
    error = row.get("accuracy_error")
    return percent(row["accuracy"]) + (f" ± {100 * error:.1f}" if error else "")
