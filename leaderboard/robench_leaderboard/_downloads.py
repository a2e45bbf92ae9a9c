"""Files beside the pages: the figures as CSV, JSON and Parquet, and the evidence of each classifier."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robench.evidence import EVIDENCE, to_parquet
from robench.metrics import RHO, Share, Subject
from robench.runs import Run
from robench_leaderboard._boards import Board
from robench_leaderboard._names import classifier_page
from robench_leaderboard._rows import Row

__all__ = ["COLUMNS", "board_files", "evidence_file", "evidence_of", "figure_files", "records_of"]

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # the wide ones count where Chinese or Japanese is written
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("dataset_hash", pa.string()),
        ("split", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.string()),
        ("eps_value", pa.float64()),
        ("classifier", pa.string()),
        ("name", pa.string()),
        ("fingerprint", pa.string()),
        ("trust", pa.string()),
        ("n", pa.int64()),
        *(
            (f"{side}{end}", pa.float64())
            for side in ("clean", "certified", "empirical")
            for end in ("", "_low", "_high")
        ),
        ("joint_low", pa.float64()),
        ("joint_high", pa.float64()),
        ("ceiling", pa.float64()),
        ("ceiling_bound", pa.string()),
        ("rank_best", pa.int64()),
        ("rank_worst", pa.int64()),
        ("abstained", pa.int64()),
        ("average_certified_radius", pa.float64()),
        ("false_at_most", pa.int64()),
        ("robust_at_least", pa.int64()),
        ("confidence", pa.float64()),
        ("contradictions", pa.int64()),
        ("errors", pa.int64()),
        ("health", pa.string()),
        ("flags", pa.string()),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
COLUMNS: tuple[tuple[str, str], ...] = (
    ("dataset, dataset_hash, split", "what the samples are; the hash covers inputs, labels and domain"),
    ("norm, eps, eps_value", "the budget, as it was given and as a double"),
    ("classifier, name, fingerprint", "spec, display name, and the function itself"),
    ("trust", "the weakest trust level behind the row"),
    ("n", "number of samples"),
    (
        "clean, certified, empirical",
        "fractions of n, each with its 95 % interval (_low, _high); empty where not asked",
    ),
    ("joint_low, joint_high", "95 % interval of the population's robust accuracy"),
    ("ceiling, ceiling_bound", "what no classifier can exceed on these samples, and which bound says so"),
    ("rank_best, rank_worst", "rank as a range; empty where the row has none"),
    ("abstained", "samples on whose clean input a vote abstains: not correct"),
    ("average_certified_radius", "mean certified radius, 0 without one; empty where no certificate gave radii"),
    (
        "false_at_most, robust_at_least",
        f"of the certified samples, with confidence {1 - RHO:g}, where certificates are statistical",
    ),
    ("confidence", "the lowest confidence of a statement used; 1 for proofs"),
    ("contradictions, errors", "numbers of samples"),
    ("health", "clean, flagged or unprobed: whether gradients can be trusted here; empty where no attack was asked"),
    ("flags", "codes, separated by spaces"),
    ("forwards, backwards, seconds", "cost of everything that speaks about this budget; empty where none is claimed"),
)
"""What the columns of the figures mean."""


def evidence_file(subject: Subject) -> str:
    """Return the name of the file that holds all evidence about a classifier on a split."""
    return f"{classifier_page(subject).removesuffix('.html')}-evidence.parquet"


def evidence_of(subject: Subject, runs: Iterable[Run]) -> bytes:
    """Return the evidence rows of `runs` about `subject` as Parquet, in an order that does not depend on theirs."""
    mine = {manifest.run for manifest in subject.runs}
    identity = {
        "fingerprint": subject.fingerprint,
        "dataset_hash": subject.dataset_hash,
        "split": subject.split,
    }
    words = [field.name for field in EVIDENCE if pa.types.is_dictionary(field.type)]
    plain = pa.schema([field.with_type(pa.string()) if field.name in words else field for field in EVIDENCE])
    parts = []
    for run in runs:
        if run.manifest.run in mine:
            for part in run.iter_evidence():
                table = part.cast(plain)
                for column, value in identity.items():
                    table = table.filter(pc.equal(table[column], value))
                parts.append(table)
    whole = pa.concat_tables(parts).combine_chunks()
    keys = ("run", "sample", "kind", "evaluator", "norm", "eps", "lower", "upper")
    whole = whole.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    for place, name in enumerate(whole.column_names):
        if name in words:
            whole = whole.set_column(place, EVIDENCE.field(name), whole[name].combine_chunks().dictionary_encode())
    return to_parquet(whole.cast(EVIDENCE))


def records_of(board: Board) -> list[dict[str, Any]]:
    """Return the figures of a board as flat records, in the order of its rows."""
    return [_record(board, row) for row in board.rows]


def board_files(board: Board) -> dict[str, bytes]:
    """Return the figures of a board as CSV, JSON and Parquet: name and content."""
    identity = {key: getattr(board, key) for key in ("dataset", "dataset_hash", "split", "norm")}
    results = [_document(row) for row in board.rows]
    document = {"schema": 1, **identity, "results": results}
    return {
        f"{board.stem}.json": _json(document),
        **_tables(board.stem, records_of(board)),
    }


def figure_files(boards: Sequence[Board], summary: dict[str, Any]) -> dict[str, bytes]:
    """Return all figures: `summary` as JSON, the boards' records as CSV and Parquet."""
    return {
        "results.json": _json(summary),
        **_tables("results", [record for board in boards for record in records_of(board)]),
    }


def _document(row: Row) -> dict[str, Any]:
    ranks = {"rank": None if row.best is None else [row.best, row.worst], "name": row.name, "trust": row.trust}
    bound = {"ceiling_from": asdict(row.result.ceiling) if row.result.ceiling else None}
    return row.result.document() | ranks | bound


def _record(board: Board, row: Row) -> dict[str, Any]:
    result, subject = row.result, row.result.subject
    return {
        "dataset": board.dataset,
        "dataset_hash": board.dataset_hash,
        "split": board.split,
        "norm": board.norm,
        "eps": result.eps.text,
        "eps_value": None if subject.regions else result.eps.value,
        "classifier": subject.classifier,
        "name": row.name,
        "fingerprint": subject.fingerprint,
        "trust": row.trust,
        "n": result.n,
        **_share("clean", result.clean),
        **_share("certified", result.certified),
        **_share("empirical", result.empirical),
        "joint_low": result.joint_interval.lower,
        "joint_high": result.joint_interval.upper,
        "ceiling": result.ceiling.value if result.ceiling else None,
        "ceiling_bound": result.ceiling.bound if result.ceiling else None,
        "rank_best": row.best,
        "rank_worst": row.worst,
        "abstained": result.abstained,
        "average_certified_radius": result.average_radius,
        "false_at_most": result.statement.false_at_most if result.statement else None,
        "robust_at_least": result.statement.robust_at_least if result.statement else None,
        "confidence": result.confidence,
        "contradictions": result.contradictions,
        "errors": result.errors,
        "health": result.health.grade if result.health else None,
        "flags": " ".join(sorted({flag.code for flag in result.flags})),
        "forwards": None if result.audit else result.forwards,
        "backwards": None if result.audit else result.backwards,
        "seconds": None if result.audit else result.seconds,
    }


def _share(name: str, share: Share | None) -> dict[str, float | None]:
    if share is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: share.value, f"{name}_low": share.interval.lower, f"{name}_high": share.interval.upper}


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _tables(stem: str, records: list[dict[str, Any]]) -> dict[str, bytes]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records, schema=_SCHEMA), sink, compression="zstd")
    return {f"{stem}.csv": _csv(records), f"{stem}.parquet": sink.getvalue().to_pybytes()}


def _csv(records: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_SCHEMA.names)
    for record in records:
        writer.writerow([_cell(record[name]) for name in _SCHEMA.names])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A spreadsheet must not take a stranger's name for a formula."""
    return f"'{value}" if isinstance(value, str) and value.lstrip()[:1] in _FORMULA else value
