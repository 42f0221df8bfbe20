"""Makes the Grafana dashboards in ``deploy/grafana`` from the metric catalogue.

    python -m scripts.grafana            write them
    python -m scripts.grafana --check    say whether what is committed is what this makes

Panels are named here by hand, and say what their metrics tell in the catalogue's own words. What
the catalogue has and no panel shows gets a panel of its kind at the end of the dashboard of one
node, so that none is forgotten when it is added.

Not here: rules and alerts (``deploy/prometheus``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from node.telemetry.metrics import Entry, Metrics

FOLDER: Final = Path(__file__).resolve().parent.parent / "deploy" / "grafana"
WIDTH: Final = 24
"""Columns of Grafana's grid."""
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
NODE: Final = 'agency="$agency"'
NODES: Final = 'agency=~"$agency"'
WHERE: Final = f'{NODE}, domain=~"$domain"'
CONFLICTS: Final = "STALE|BASIS_MOVED|HELD|NOT_UNIQUE|RULES_MOVED"
RATE: Final = "[$__rate_interval]"
LINE, STACK, STAT, TABLE = "line", "stack", "stat", "table"


@dataclass(frozen=True, slots=True)
class Plot:
    """A panel: queries with their legends, and what they are in."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = LINE
    text: str = ""
    bad_from: float | None = None
    """From this value on it is red."""
    good_from: float | None = None
    """Below this value it is red."""
    width: int = 8


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: rows of panels, and the variables that its reader sets."""

    uid: str
    title: str
    text: str
    rows: Sequence[tuple[str, Sequence[Plot]]]
    many: bool = False
    """Whether it shows several agencies at once."""
    domains: bool = False
    tags: Sequence[str] = field(default=("comity",))


def one(name: str, legend: str = "") -> tuple[str, str]:
    """Query a gauge of one node."""
    return f"{name}{{{NODE}}}", legend or name.removeprefix("comity_")


def every(name: str) -> tuple[str, str]:
    """Query a gauge of every chosen node."""
    return f"{name}{{{NODES}}}", "{{agency}}"


def rate(name: str, by: str, where: str = NODE) -> tuple[str, str]:
    """Query a counter's rate by one of its labels."""
    return f"sum by ({by}) (rate({name}{{{where}}}{RATE}))", f"{{{{{by}}}}}"


def quantile(share: float, name: str, by: str = "", where: str = NODE) -> tuple[str, str]:
    """Query a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    inner = f"sum by ({labels}) (rate({name}_bucket{{{where}}}{RATE}))"
    legend = f"{{{{{by}}}}} p{share * 100:.0f}" if by else f"p{share * 100:.0f}"
    return f"histogram_quantile({share}, {inner})", legend


FIRING: Final = Plot(
    "Alerts that fire",
    [(f'count by (alertname, agency) (ALERTS{{alertstate="firing", {NODES}}})', "")],
    kind=TABLE,
    text="Each has a page of what to do in docs/runbooks.",
    width=24,
)

OVERVIEW: Final = Board(
    "comity-network",
    "Comity: network",
    "All nodes that this Prometheus scrapes, side by side.",
    [
        (
            "Is it all right?",
            [
                Plot("Ready", [every("comity_node_ready")], kind=STAT, good_from=1, width=6),
                Plot("Signing", [every("comity_node_signing")], kind=STAT, good_from=1, width=6),
                Plot(
                    "Nodes above a quorum",
                    [(f"comity:margin:nodes{{{NODES}}}", "{{agency}}")],
                    kind=STAT,
                    good_from=1,
                    text="How many more may be lost before nothing is certified any more.",
                    width=6,
                ),
                Plot("Epoch", [every("comity_consensus_epoch")], kind=STAT, width=6),
                FIRING,
            ],
        ),
        (
            "Work",
            [
                Plot(
                    "Certified decisions a second",
                    [(f"comity:decisions:rate5m{{{NODES}}}", "{{agency}}")],
                    "ops",
                ),
                Plot("Certified height", [every("comity_consensus_certified_height")]),
                Plot(
                    "Clients wait for decisions (p95)",
                    [
                        (
                            f'comity:client_seconds:p95_5m{{work="decision", {NODES}}}',
                            "{{agency}}",
                        )
                    ],
                    "s",
                    bad_from=5,
                ),
                Plot(
                    "From a block to its certificate (p95)",
                    [(f"comity:commit_seconds:p95_5m{{{NODES}}}", "{{agency}}")],
                    "s",
                ),
                Plot(
                    "Share of decisions that are refused",
                    [(f"comity:refusals:ratio5m{{{NODES}}}", "{{agency}}")],
                    "percentunit",
                    bad_from=0.5,
                ),
                Plot("Heights behind", [every("comity_consensus_behind_heights")], bad_from=64),
            ],
        ),
        (
            "Members",
            [
                Plot(
                    "Certificates without a validator's vote",
                    [
                        (
                            f"avg by (validator) (comity:votes_missing:ratio10m{{{NODES}}})",
                            "{{validator}}",
                        )
                    ],
                    "percentunit",
                    bad_from=0.9,
                    text="A quarter is usual with four validators, since three suffice.",
                ),
                Plot(
                    "Rounds given up, by leader",
                    [rate("comity_consensus_timeouts_total", "leader", NODES)],
                    "ops",
                ),
                Plot(
                    "Clock skew",
                    [
                        (
                            f"comity_consensus_clock_skew_seconds{{{NODES}}}",
                            "{{validator}} as {{agency}} sees it",
                        )
                    ],
                    "s",
                ),
                Plot(
                    "Validators, and those needed",
                    [
                        (f"max(comity_consensus_validators{{{NODES}}})", "validators"),
                        (f"max(comity_consensus_quorum{{{NODES}}})", "quorum"),
                        (f"min(comity_peers_connected{{{NODES}}}) + 1", "connected, at least"),
                    ],
                ),
                Plot(
                    "Contradicting signatures seen",
                    [every("comity_consensus_equivocations_total")],
                    bad_from=1,
                ),
                Plot(
                    "Memory, of what may be taken",
                    [(f"comity:memory:ratio{{{NODES}}}", "{{agency}}")],
                    "percentunit",
                    bad_from=0.9,
                ),
            ],
        ),
    ],
    many=True,
)

COORDINATION: Final = Board(
    "comity-coordination",
    "Comity: coordination",
    "Who is in whose way: conflicts by code and domain, holds, proposals, time to decision. "
    "Every node of a network tells the same, from certified heights.",
    [
        (
            "Conflicts",
            [
                Plot(
                    "Conflicts a second, by domain",
                    [(f"comity:conflicts:rate5m{{{WHERE}}}", "{{domain}}")],
                    "ops",
                    STACK,
                    "Acts that failed because another agency changed or holds the record, or the "
                    "rules moved.",
                ),
                Plot(
                    "Conflicts a second, by code",
                    [rate("comity_ledger_refusals_total", "code", f'{WHERE}, code=~"{CONFLICTS}"')],
                    "ops",
                    STACK,
                ),
                Plot(
                    "Decisions a second, by code",
                    [rate("comity_ledger_transactions_total", "code")],
                    "ops",
                    STACK,
                ),
                Plot(
                    "Refusals in the time shown, by domain and code",
                    [
                        (
                            "sum by (domain, code) (increase("
                            f"comity_ledger_refusals_total{{{WHERE}}}[$__range])) > 0",
                            "",
                        )
                    ],
                    kind=TABLE,
                    width=12,
                ),
                Plot(
                    "Refusals a second, by domain",
                    [(f"comity:refusals:rate5m{{{WHERE}}}", "{{domain}}")],
                    "ops",
                    width=12,
                ),
            ],
        ),
        (
            "Holds",
            [
                Plot(
                    "Holds in force",
                    [(f"comity_ledger_holds_in_force{{{WHERE}}}", "{{domain}}")],
                    kind=STACK,
                    width=12,
                ),
                Plot(
                    "Holds placed and released, an hour",
                    [
                        (
                            "sum by (domain, event) (increase("
                            f"comity_ledger_holds_total{{{WHERE}}}[1h]))",
                            "{{domain}} {{event}}",
                        )
                    ],
                    width=12,
                ),
            ],
        ),
        (
            "Proposals",
            [
                Plot(
                    "Proposals waiting",
                    [(f"comity_ledger_proposals_waiting{{{WHERE}}}", "{{domain}}")],
                    kind=STACK,
                ),
                Plot(
                    "The oldest has waited for",
                    [(f"comity_ledger_proposal_oldest_seconds{{{WHERE}}}", "{{domain}}")],
                    "s",
                    bad_from=7 * 86400,
                    text="In chain time.",
                ),
                Plot(
                    "Time to decision, the middle one of a day",
                    [(f"comity:proposal_seconds:p50_1d{{{WHERE}}}", "{{domain}}")],
                    "s",
                    text="Chain time from a proposal to its end, whatever that was.",
                ),
                Plot(
                    "Time to decision, one in twenty takes longer",
                    [
                        (
                            "histogram_quantile(0.95, sum by (le, domain) (rate("
                            f"comity_ledger_proposal_seconds_bucket{{{WHERE}}}[1d])))",
                            "{{domain}}",
                        )
                    ],
                    "s",
                    width=12,
                ),
                Plot(
                    "How proposals ended, a day",
                    [
                        (
                            "sum by (end) (increase("
                            f"comity_ledger_proposal_seconds_count{{{WHERE}}}[1d]))",
                            "{{end}}",
                        )
                    ],
                    kind=STACK,
                    width=12,
                ),
            ],
        ),
    ],
    domains=True,
)

NODE_ROWS: Final[Sequence[tuple[str, Sequence[Plot]]]] = [
    (
        "Is it all right?",
        [
            Plot("Ready", [one("comity_node_ready")], kind=STAT, good_from=1, width=4),
            Plot("Signing", [one("comity_node_signing")], kind=STAT, good_from=1, width=4),
            Plot("Disk failed", [one("comity_storage_failed")], kind=STAT, bad_from=1, width=4),
            Plot(
                "Release",
                [(f"comity_build_info{{{NODE}}}", "{{version}}")],
                kind=STAT,
                width=4,
            ),
            Plot("Links", [one("comity_peers_connected")], kind=STAT, width=4),
            Plot("Executor", [one("comity_executor_in_force")], kind=STAT, width=4),
            Plot(
                "Executor lacked from",
                [one("comity_executor_lacking_from_seconds")],
                kind=STAT,
                bad_from=1,
                text="Seconds since 1970; this node stops then. 0: its release has them all.",
                width=4,
            ),
            Plot(
                "Up for",
                [(f"time() - comity_process_start_seconds{{{NODE}}}", "up")],
                "s",
                STAT,
                width=4,
            ),
            Plot("Round", [one("comity_consensus_round")], kind=STAT, width=4),
            FIRING,
        ],
    ),
    (
        "Ordering",
        [
            Plot(
                "Heights",
                [
                    one(f"comity_{name}_height", name.removeprefix("consensus_"))
                    for name in (
                        "consensus_ordered",
                        "consensus_executed",
                        "consensus_certified",
                        "store_flushed",
                    )
                ],
            ),
            Plot(
                "From a block to its certificate",
                [quantile(share, "comity_consensus_commit_seconds") for share in (0.5, 0.95)],
                "s",
            ),
            Plot("Stages (p95)", [quantile(0.95, "comity_stage_seconds", "stage")], "s"),
            Plot(
                "Certificates a second, and those that lack a vote",
                [
                    (f"rate(comity_consensus_certificates_total{{{NODE}}}{RATE})", "all"),
                    (
                        f"rate(comity_consensus_votes_missing_total{{{NODE}}}{RATE})",
                        "without {{validator}}",
                    ),
                ],
                "ops",
            ),
            Plot(
                "Rounds given up, by leader",
                [rate("comity_consensus_timeouts_total", "leader")],
                "ops",
            ),
            Plot(
                "Clock skew",
                [(f"comity_consensus_clock_skew_seconds{{{NODE}}}", "{{validator}}")],
                "s",
            ),
        ],
    ),
    (
        "Clients",
        [
            Plot(
                "Clients wait for",
                [
                    quantile(0.5, "comity_client_seconds", "work"),
                    quantile(0.95, "comity_client_seconds", "work"),
                ],
                "s",
            ),
            Plot(
                "Answers a second, by status",
                [rate("comity_client_requests_total", "status")],
                "ops",
            ),
            Plot(
                "Answers a second, by method",
                [rate("comity_client_requests_total", "method")],
                "ops",
            ),
            Plot(
                "Connections, and transactions waited for",
                [one("comity_client_sessions"), one("comity_client_waiting_transactions")],
            ),
            Plot(
                "Pool",
                [one("comity_mempool_bytes"), one("comity_mempool_max_bytes")],
                "bytes",
            ),
            Plot(
                "Connections by minor version, a second",
                [rate("comity_client_hellos_total", "minor")],
                "ops",
            ),
            Plot(
                "Cut and turned away, a second",
                [
                    rate("comity_client_cut_total", "reason"),
                    (f"rate(comity_mempool_busy_total{{{NODE}}}{RATE})", "BUSY"),
                    rate("comity_telemetry_cut_total", "reason"),
                ],
                "ops",
            ),
        ],
    ),
    (
        "Links",
        [
            Plot(
                "Round trip",
                [(f"comity_peer_round_trip_seconds{{{NODE}}}", "{{peer}}")],
                "s",
            ),
            Plot(
                "Waiting to be sent",
                [(f"comity_peer_queued_bytes{{{NODE}}}", "{{peer}}")],
                "bytes",
            ),
            Plot(
                "Certificates: time until they end",
                [(f"comity_certificate_end_seconds{{{NODE}}} - time()", "{{whose}}")],
                "s",
                text="Those that the software makes have no end.",
            ),
            Plot("Links ended, a second", [rate("comity_peer_disconnects_total", "peer")], "ops"),
            Plot(
                "Peers of another release",
                [(f"comity_peer_other_release{{{NODE}}}", "{{peer}}")],
            ),
            Plot(
                "Links declined for their version, a second",
                [rate("comity_peer_other_version_total", "peer")],
                "ops",
            ),
            Plot(
                "What peers did wrong, a second",
                [
                    (
                        f"sum by (peer) (rate({name}{{{NODE}}}{RATE}))",
                        f"{{{{peer}}}}: {what}",
                    )
                    for name, what in (
                        ("comity_peer_faults_total", "faults"),
                        ("comity_batches_rejected_total", "batches refused"),
                        ("comity_peer_requests_refused_total", "asks too much"),
                        ("comity_peer_cut_total", "cut"),
                        ("comity_peer_frames_dropped_total", "too slow"),
                    )
                ],
                "ops",
            ),
            Plot("Strangers, a second", [rate("comity_peer_strangers_total", "reason")], "ops"),
            Plot(
                "Batches dropped, a second", [rate("comity_batches_dropped_total", "reason")], "ops"
            ),
        ],
    ),
    (
        "Machine",
        [
            Plot(
                "Processor",
                [rate("comity_process_cpu_seconds_total", "process")],
                "percentunit",
                text="A whole core is 100 %.",
            ),
            Plot(
                "Memory",
                [
                    (f"comity_process_memory_bytes{{{NODE}}}", "{{process}}"),
                    one("comity_process_memory_max_bytes", "may be taken"),
                ],
                "bytes",
            ),
            Plot("Delay of the main loop", [one("comity_loop_delay_seconds")], "s", bad_from=0.25),
            Plot(
                "One sync of the log",
                [quantile(share, "comity_log_fsync_seconds") for share in (0.5, 0.99)],
                "s",
                bad_from=0.05,
            ),
            Plot(
                "Signer: from request to signature",
                [quantile(share, "comity_signer_seconds") for share in (0.5, 0.99)],
                "s",
                bad_from=0.05,
            ),
            Plot(
                "One commit of the store",
                [quantile(share, "comity_store_flush_seconds") for share in (0.5, 0.99)],
                "s",
            ),
            Plot(
                "Disk",
                [
                    one("comity_disk_free_bytes", "free"),
                    one("comity_disk_bytes", "whole"),
                    one("comity_store_bytes", "store"),
                    one("comity_log_bytes", "log"),
                ],
                "bytes",
            ),
            Plot("Queues", [(f"comity_queue_depth_items{{{NODE}}}", "{{queue}}")]),
            Plot(
                "Signatures checked a second",
                [
                    (f"rate(comity_verifier_signatures_total{{{NODE}}}{RATE})", "checked"),
                    (f"rate(comity_verifier_restarts_total{{{NODE}}}{RATE})", "workers restarted"),
                ],
                "ops",
            ),
        ],
    ),
]


def shown(boards: Iterable[Board]) -> set[str]:
    """Names of the catalogue that panels ask for."""
    exprs = [
        expr
        for board in boards
        for _, plots in board.rows
        for plot in plots
        for expr, _ in plot.queries
    ]
    found = set(re.findall(r"\bcomity_[a-z_]+", " ".join(exprs)))
    return found | {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def plain(entry: Entry) -> Plot:
    """Return a panel for a metric as its kind suggests."""
    by = ", ".join(entry.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in entry.labels)
    match entry.kind:
        case "counter":
            inner = f"rate({entry.name}{{{NODE}}}{RATE})"
            expr = f"sum by ({by}) ({inner})" if by else inner
        case "histogram":
            labels = ", ".join(("le", *entry.labels))
            inner = f"sum by ({labels}) (rate({entry.name}_bucket{{{NODE}}}{RATE}))"
            expr = f"histogram_quantile(0.95, {inner})"
        case _:
            expr = f"{entry.name}{{{NODE}}}"
    unit = "short"
    for part, known in (("_seconds", "s"), ("_bytes", "bytes"), ("_total", "ops")):
        unit = known if entry.name.endswith(part) else unit
    return Plot(entry.name, [(expr, legend or entry.name)], unit, text=f"{entry.text}.")


def boards() -> list[Board]:
    """Return every dashboard."""
    node = Board(
        "comity-node", "Comity: one node", "Everything that one node tells of itself.", NODE_ROWS
    )
    known = shown([OVERVIEW, COORDINATION, node])
    rest = [plain(each) for each in Metrics().catalogue if each.name not in known]
    rows = [*NODE_ROWS, ("Everything else", rest)]
    return [OVERVIEW, COORDINATION, Board(node.uid, node.title, node.text, rows)]


# --- as Grafana has it ----------------------------------------------------------------------------


def target(expr: str, legend: str, number: int, kind: str) -> prometheus.Dataquery:
    """Return a query of a panel."""
    query = prometheus.Dataquery().expr(expr).ref_id(chr(ord("A") + number)).datasource(SOURCE)
    if legend:
        query = query.legend_format(legend)
    if kind == TABLE:
        return query.instant().format(PromQueryFormat.TABLE)
    return query.instant() if kind == STAT else query.range()


def panel(plot: Plot, x: int, y: int, height: int) -> Any:
    """Return the builder of a panel at its place."""
    built: Any
    match plot.kind:
        case "stat":
            built = (
                stat.Panel()
                .graph_mode(BigValueGraphMode.NONE)
                .color_mode(BigValueColorMode.BACKGROUND)
                .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
            )
        case "table":
            hidden = {"excludeByName": {"Time": True}}
            built = table.Panel().with_transformation(
                DataTransformerConfig(id_val="organize", options=hidden)
            )
        case _:
            legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST)
            tooltip = VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
            built = (
                timeseries.Panel()
                .legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True))
                .tooltip(tooltip)
                .draw_style(GraphDrawStyle.LINE)
                .fill_opacity(30 if plot.kind == STACK else 5)
            )
            if plot.bad_from is not None:
                line = GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)
                built = built.thresholds_style(line)
            if plot.kind == STACK:
                built = built.stacking(StackingConfig().mode(StackingMode.NORMAL))
    steps = [Threshold(value=None, color="green")]
    if plot.bad_from is not None:
        steps.append(Threshold(value=plot.bad_from, color="red"))
    if plot.good_from is not None:
        steps = [Threshold(None, "red"), Threshold(plot.good_from, "green")]
    thresholds = dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
    return (
        built.title(plot.title)
        .description(plot.text)
        .datasource(SOURCE)
        .unit(plot.unit)
        .thresholds(thresholds)
        .targets([target(*each, at, plot.kind) for at, each in enumerate(plot.queries)])
        .grid_pos(GridPos(h=height, w=plot.width, x=x, y=y))
    )


def variable(name: str, label: str, query: str, many: bool) -> dashboards.QueryVariable:
    """Return a variable whose values are those of a label."""
    made = (
        dashboards.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(many)
        .include_all(many)
    )
    if many:
        everything = VariableOption(selected=True, text="All", value="$__all")
        made = made.all_value(".*").current(everything)
    return made


def built(board: Board) -> str:
    """Return a dashboard as Grafana reads it."""
    made = (
        dashboards.Dashboard(board.title)
        .uid(board.uid)
        .description(board.text)
        .tags(list(board.tags))
        .timezone("browser")
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            variable("agency", "Agency", "label_values(comity_node_ready, agency)", board.many)
        )
    )
    if board.domains:
        query = 'label_values(comity_ledger_holds_in_force{agency="$agency"}, domain)'
        made = made.with_variable(variable("domain", "Domain", query, True))
    y = 0
    numbers = itertools.count(1)
    for title, plots in board.rows:
        place = GridPos(h=1, w=WIDTH, x=0, y=y)
        made = made.with_row(dashboards.Row(title).id(next(numbers)).grid_pos(place))
        y += 1
        x, row_height = 0, 0
        for plot in plots:
            height = {STAT: 4, TABLE: 7}.get(plot.kind, 8)
            if x + plot.width > WIDTH:
                x, y, row_height = 0, y + row_height, 0
            made = made.with_panel(panel(plot, x, y, height).id(next(numbers)))
            x, row_height = x + plot.width, max(row_height, height)
        y += row_height
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write the dashboards, or compare them with what is committed."""
    parser = argparse.ArgumentParser(prog="dashboards", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for board in boards():
        place = FOLDER / f"{board.uid}.json"
        text = built(board)
        if options.check:
            if not place.exists() or place.read_text("utf-8") != text:
                stale.append(place.name)
        else:
            place.write_text(text, "utf-8")
    if stale:
        sys.exit(f"not what the catalogue makes: {', '.join(stale)}; run scripts/dashboards")


if __name__ == "__main__":
    main()
