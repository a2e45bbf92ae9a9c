"""Manifests of strangers: every wrong one is answered in one line, none gets past its types."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded import DATA, NET, manifest
from robench.errors import DataError
from robench.runs import Display, Environment, EvaluatorInfo, Flag, GitState, Manifest, PluginInfo, StageInfo

FULL = manifest(
    3,
    evaluators=(
        EvaluatorInfo(
            canonical="pgd:steps=50 | eot:draws=20",
            full="pgd:steps=50,restarts=1",
            plugins=(PluginInfo(name="pgd", distribution="robench", version="0.1.0"),),
            kind="attack",
            side="attack",
            norm="linf",
            default=True,
            access="gradients",
        ),
        EvaluatorInfo(
            canonical="cascade",
            kind="attack",
            side="attack",
            stages={"apgd": StageInfo(access="gradients"), "fmn#2": StageInfo(access=None, per_eps=False)},
        ),
    ),
    environment=Environment(
        device="cuda:0 (NVIDIA H200)",
        batch_size=256,
        versions={"robench": "0.1.0", "torch": "2.13.0"},
        deterministic={"cudnn": True},
        git=GitState(commit="c" * 40, dirty=True),
    ),
    display=Display(name="ε net", paper="A paper\u00a0title", licence="MIT", more={"team": "nobody"}),
    flags=(Flag(code="errors", text="two samples ended in error"),),
    errors=2,
    same_as=("d" * 64, "import:" + "e" * 16),
    parts={"evidence/part-000000000.parquet": "f" * 64},
    complete=True,
    started=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2))),
)


def changed(path: str, value: Any) -> bytes:
    """The full manifest's JSON with one place changed (`del` removes it)."""
    data = json.loads(FULL.to_json())
    at = data
    *parents, last = path.split("/")
    for step in parents:
        at = at[int(step) if isinstance(at, list) else step]
    if value is del_:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(data).encode()


del_ = object()


def refused(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        Manifest.from_json(data, "x/manifest.json")
    message = str(caught.value)
    assert message.startswith("x/manifest.json: not a run's manifest: ")
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500


def test_round_trip() -> None:
    assert Manifest.from_json(FULL.to_json(), "x") == FULL
    assert FULL.started == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert Manifest.from_json(manifest().to_json(), "x").request == manifest().request


def test_manifests_that_tell_neither_access_nor_stages_are_read() -> None:
    old = json.loads(FULL.to_json())
    for info in old["evaluators"]:
        del info["access"], info["stages"]
    read = Manifest.from_json(json.dumps(old).encode(), "x")
    assert {(info.access, info.stages) for info in read.evaluators} == {(None, None)}
    assert read.evaluators[1].names == ("cascade",)
    assert FULL.evaluators[1].names == ("cascade", "apgd", "fmn#2")


def test_unbounded_domains_are_null_in_json() -> None:
    dataset = FULL.dataset.model_copy(update={"domain": (0.0, None)})
    back = Manifest.from_json(FULL.replace(dataset=dataset).to_json(), "x")
    assert back.dataset.domain == (0.0, None)
    assert back.dataset.bounds == (0.0, math.inf)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("run", "../../etc"),
        ("run", "20260101T000000Z-00000g"),
        ("run", "20260101T000000Z-000000\n"),
        ("complete", "yes"),
        ("complete", 1),
        ("origin", "guessed"),
        ("trust", "certain"),
        ("request", del_),
        ("request", []),
        ("request/fingerprint", "A" * 64),
        ("request/fingerprint", "0" * 64),  # not the classifier's
        ("request/split", "train"),  # not the dataset's
        ("request/eps", "8/255"),
        ("request/eps", ["-1"]),
        ("request/eps", ["nan"]),
        ("request/eps", [0.1]),
        ("request/seed", 1.5),
        ("request/seed", 2**63),
        ("request/norm", "l7"),
        ("classifier/classes", 0),
        ("classifier/classes", True),
        ("classifier/classes", 10**400),
        ("classifier/input_shape", [-1]),
        ("classifier/input_shape", [1] * 9),
        ("classifier/canonical", ""),
        ("classifier/canonical", "x\u202egnp.exe"),
        ("classifier/canonical", "\x1b[2J"),
        ("classifier/canonical", "x" * 20_001),
        ("dataset/domain", [0.0]),
        ("dataset/domain", [0.0, "inf"]),
        ("dataset/n", -1),
        ("dataset/thresholds", {"l7": ["1"]}),
        ("dataset/classes", {"0": "zero"}),
        ("evaluators/0/kind", "clean"),
        ("evaluators/0/plugins/0/version", 1),
        ("evaluators/0/access", "root"),
        ("evaluators/0/access", ["gradients"]),
        ("evaluators/1/stages", ["apgd"]),
        ("evaluators/1/stages", {"apgd": "gradients"}),
        ("evaluators/1/stages", {"": {"access": None}}),
        ("evaluators/1/stages", {"\x1b[2J": {"access": None}}),
        ("evaluators/1/stages/apgd/access", "<script>"),
        ("evaluators/1/stages/apgd/per_eps", 0),
        ("evaluators/1/stages/apgd/health", {}),
        ("environment/git/commit", "HEAD"),
        ("environment/user", "somebody"),
        ("display/more", {"__proto__": "x"}),
        ("display/more", {"<script>": "x"}),
        ("display/more", {"a": {"b": "c"}}),
        ("display/name", "two\nlines"),
        ("display/name", "x" * 501),
        ("__proto__", {"polluted": True}),
        ("constructor", {}),
        ("flags/0/code", "two words"),
        ("errors", -1),
        ("started", "2026-01-02T03:04:05"),
        ("started", 0),
        ("same_as", ["x"]),
        ("parts", {"../manifest.json": "f" * 64}),
        ("parts", {"evidence/../x.parquet": "f" * 64}),
        ("parts", {"/etc/passwd": "f" * 64}),
        ("parts", {"evidence/part-000000000.parquet": "short"}),
    ],
)
def test_hostile_values(path: str, value: Any) -> None:
    refused(changed(path, value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"complete": NaN}',
        b'{"run": "\\ud800"}',
        b'{"\\u001b[31m": 1}',
        b'{"' + b"k" * 100_000 + b'": 1}',
    ],
    ids=range(13),
)
def test_hostile_json(data: bytes) -> None:
    refused(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
PLACES = ["run", "trust", "source", "request/versions", "request/eps", "request/norm", "classifier/canonical",
          "classifier/plugins", "dataset/domain", "dataset/classes", "dataset/thresholds", "evaluators",
          "evaluators/0/access", "evaluators/1/stages",
          "environment", "display", "display/more", "flags", "same_as", "parts", "finished"]  # fmt: skip


@given(path=st.sampled_from(PLACES), value=JSON)
def test_any_json_is_refused_or_kept(path: str, value: Any) -> None:
    """What gets in comes out of another round trip unchanged, or is refused in one line."""
    data = changed(path, value)
    try:
        read = Manifest.from_json(data, "x")
    except DataError as error:
        assert str(error).isprintable()
    else:
        assert Manifest.from_json(read.to_json(), "x") == read


def test_imported_evidence_is_not_measured() -> None:
    with pytest.raises(DataError, match="not measured"):
        FULL.replace(origin="imported")
    assert FULL.replace(origin="imported", trust="imported", source="a file").trust == "imported"


def test_replace_checks() -> None:
    with pytest.raises(DataError, match="errors"):
        FULL.replace(errors=-1)
    with pytest.raises(DataError, match="nonsense"):
        FULL.replace(nonsense=1)
    assert FULL.replace(errors=5).errors == 5
    assert FULL.errors == 2


def test_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest has no place for a user, host or path."""
    fields = json.loads(FULL.to_json())
    words = {"user", "host", "hostname", "path", "cwd", "home", "folder", "machine", "node"}

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list) else set()

    assert not names(fields) & words
    assert fields["request"]["fingerprint"] == NET
    assert fields["dataset"]["hash"] == DATA
