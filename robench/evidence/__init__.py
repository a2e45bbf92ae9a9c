"""Evidence: one row per (run, sample, evaluator, norm, ε), and the witnesses behind every `upper`."""

from robench.evidence._builder import EvidenceBuilder
from robench.evidence._checks import check_evidence, check_witnesses, repeated_key
from robench.evidence._columns import detail_json
from robench.evidence._parquet import from_parquet, to_parquet
from robench.evidence._points import decode_clean, decode_point, decode_points
from robench.evidence._schema import EVIDENCE, KINDS, SCHEMA_VERSION, STATUSES, WITNESSES, Kind, Status
from robench.evidence._witnesses import WitnessBuilder

__all__ = [
    "EVIDENCE",
    "KINDS",
    "SCHEMA_VERSION",
    "STATUSES",
    "WITNESSES",
    "EvidenceBuilder",
    "Kind",
    "Status",
    "WitnessBuilder",
    "check_evidence",
    "check_witnesses",
    "decode_clean",
    "decode_point",
    "decode_points",
    "detail_json",
    "from_parquet",
    "repeated_key",
    "to_parquet",
]
