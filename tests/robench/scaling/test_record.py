"""Curves on disk and from figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from robench.errors import DataError
from robench.metrics import Result, Share
from robench.runs import Component, DatasetInfo
from robench.scaling import Distance, Scale, ScaleManifest, ScaleMember, curves_of, find_scales
from robench.threat import Epsilon

HASH = "ab" * 32


def fingerprint(n: int, seed: int) -> str:
    return f"{n:032x}{seed:032x}"


def manifest(**changes: Any) -> ScaleManifest:
    values: dict[str, Any] = {
        "recipe": Component(canonical="aol"),
        "dataset": DatasetInfo(canonical="digits", hash=HASH, split="test", n=100),
        "train": "digits",
        "train_hash": HASH,
        "compute": "steps",
        "members": tuple(
            ScaleMember(n=n, seed=seed, epochs=9, fingerprints={"": fingerprint(n, seed)})
            for n in (10, 20, 40)
            for seed in (0, 1)
        ),
        "distances": tuple(Distance(n=n, seed=0, median=1 / n) for n in (10, 20, 40)),
        "finished": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return ScaleManifest.model_validate(values | changes)


def result(n: int, seed: int, clean: int, certified: int | None, eps: str = "0.5", samples: int = 100) -> Result:
    subject = SimpleNamespace(fingerprint=fingerprint(n, seed), dataset_hash=HASH, split="test")
    return cast(
        Result,
        SimpleNamespace(
            subject=subject,
            norm="l2",
            eps=Epsilon.parse(eps),
            clean=Share(clean, samples),
            certified=None if certified is None else Share(certified, samples),
            empirical=None,
        ),
    )


def put(folder: Path, one: ScaleManifest) -> None:
    place = folder / "digits-abababab" / "_scale" / "aol" / one.run
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(one.to_json())


def test_what_is_put_is_found(tmp_path: Path) -> None:
    one, other = manifest(), manifest()
    put(tmp_path, one)
    put(tmp_path, other)
    for place in (tmp_path, tmp_path / "digits-abababab", tmp_path / "digits-abababab" / "_scale" / "aol"):
        assert {found.manifest.run: found.manifest for found in find_scales(place)} == {one.run: one, other.run: other}
    assert find_scales(tmp_path / "digits-abababab" / "_scale" / "aol" / one.run)[0].manifest == one


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "not the manifest of a scaling curve"),
        (b'{"schema_version": 2}', "schema_version"),
        (b"\xff", "not the manifest of a scaling curve"),
    ],
)
def test_what_is_damaged_is_told_and_left_out(tmp_path: Path, text: bytes, says: str) -> None:
    put(tmp_path, manifest())
    bad = tmp_path / "digits-abababab" / "_scale" / "aol" / "20260101T000000Z-000000"
    bad.mkdir()
    (bad / "manifest.json").write_bytes(text)
    told: list[str] = []
    assert len(find_scales(tmp_path, told.append)) == 1
    assert says in told[0]
    assert "\n" not in told[0]
    with pytest.raises(DataError):
        find_scales(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"distances": ({"n": 1, "seed": 0, "median": float("nan")},)},
        {"distances": ({"n": 1, "seed": 0, "median": 1.7e308},)},
        {"members": ({"n": 0, "seed": 0, "fingerprints": {}},)},
        {"members": ({"n": 1, "seed": 0, "fingerprints": {"": "no hash"}},)},
        {"train": "a\nb\x1b[2J"},
        {"compute": "time"},
        {"members": ({"n": 10**12, "seed": 0, "fingerprints": {}},)},
        {"members": ({"n": 1, "seed": 0, "fingerprints": {}}, {"n": 1, "seed": 0, "fingerprints": {"": HASH}})},
        {"members": tuple({"n": n, "seed": 0, "fingerprints": {"": HASH}} for n in range(1, 1002))},
        {"distances": ({"n": 1, "seed": 0, "median": 1.0}, {"n": 1, "seed": 0, "median": 2.0})},
        {"unknown": 1},
    ],
)
def test_hostile_manifests_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        manifest(**changes)


def test_curves_take_the_figures_of_their_own_classifiers() -> None:
    figures = [
        result(n, seed, 50 + n // 10 + seed, 40, eps) for n in (10, 20, 40) for seed in (0, 1) for eps in ("0.5", "1")
    ]
    figures.append(result(99, 0, 1, 1))  # another classifier
    (found,) = curves_of([Scale(manifest(), "here")], figures)
    assert [curve.title for curve in found.curves] == ["clean", "certified l2 0.5", "certified l2 1"]
    clean = found.curves[0]
    assert clean.sizes == (10, 20, 40)
    assert clean.values == pytest.approx(np.array([[0.51, 0.52], [0.52, 0.53], [0.54, 0.55]]))
    assert clean.missing == 0
    assert found.nearness is not None
    assert found.nearness.dimension == pytest.approx(1)


def test_one_classifier_may_be_that_of_several_seeds() -> None:
    """All data and no draws: the same weights from every seed."""
    members = [
        {"n": n, "seed": seed, "fingerprints": {"": fingerprint(n, seed if n < 40 else 0)}}
        for n in (10, 20, 40)
        for seed in (0, 1)
    ]
    figures = [result(n, seed, 50 + seed, None) for n in (10, 20) for seed in (0, 1)] + [result(40, 0, 60, None)]
    (found,) = curves_of([Scale(manifest(members=tuple(members)), "here")], figures)
    (curve,) = found.curves
    assert curve.values == pytest.approx(np.array([[0.5, 0.51], [0.5, 0.51], [0.6, 0.6]]))
    assert curve.missing == 0


@pytest.mark.parametrize("first", [1, 10**12 - 7])
def test_sizes_at_both_ends_have_a_law(first: int) -> None:
    sizes = range(first, first + 7)
    members = [{"n": n, "seed": seed, "fingerprints": {"": fingerprint(n, seed)}} for n in sizes for seed in (0, 1)]
    distances = [{"n": n, "seed": seed, "median": 1e-300 * (seed + 1)} for n in sizes for seed in (0, 1)]
    figures = [result(n, seed, 7 * (n - first) + seed, None) for n in sizes for seed in (0, 1)]
    (found,) = curves_of([Scale(manifest(members=tuple(members), distances=tuple(distances)), "here")], figures)
    (curve,) = found.curves
    law = curve.law
    assert np.isfinite([level.mean for level in law.levels] + [gain.per_doubling for gain in law.gains]).all()
    assert np.isfinite(law.overall.per_doubling)
    assert law.needed(0.9).n > 0
    assert found.nearness is not None


def test_a_seed_that_lacks_a_size_is_left_out_and_counted() -> None:
    figures = [result(n, seed, 50, None) for n in (10, 20, 40) for seed in (0, 1)][:-1]
    (found,) = curves_of([Scale(manifest(), "here")], figures)
    (curve,) = found.curves
    assert curve.values.shape == (3, 1)
    assert curve.missing == 1


def test_figures_on_other_samples_are_not_mixed_in() -> None:
    figures = [result(n, seed, 50, None) for n in (10, 20, 40) for seed in (0, 1)]
    figures[0] = result(10, 0, 5, None, samples=7)
    (found,) = curves_of([Scale(manifest(), "here")], figures)
    assert found.curves[0].samples == 100
    assert found.curves[0].values.shape == (3, 1)


def test_no_curve_without_two_sizes() -> None:
    (found,) = curves_of([Scale(manifest(), "here")], [result(10, 0, 50, None)])
    assert found.curves == ()
