import math
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm
from typer.testing import CliRunner

from robench.check import check
from robench.cli import app
from robench.errors import DataError, SpecError
from robench.importing import write
from robench.metrics import results
from robench.registry import load_plugins
from robench.runs import find_runs
from robench.testing import check_importer
from robench_plugins.importers._alpha import CANDIDATES, infer_alpha, radii_of_counts
from robench_plugins.importers._certify import certified_lower, printed_unit, read_lines
from robench_plugins.importers.cohen import EPS, Cohen

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
GOOD = HEADER + "0\t3\t3\t0.378\t1\t15.4\n20\t7\t-1\t0.0\t0\t0:00:14.5\n40\t4\t0\t0.0186\t0\t1:02:03\n"


def file(folder, text=GOOD, name="sigma_0.25"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def published(tmp_path):
    return tmp_path / "cifar10" / "resnet110" / "noise_0.50" / "test"


def test_lines_say_what_they_say(tmp_path):
    certified, abstained, wrong = read_lines(file(tmp_path))
    assert (certified.sample, certified.label, certified.predict, certified.correct) == (0, 3, 3, True)
    assert (certified.radius, certified.seconds) == (Decimal("0.378"), 15.4)
    assert (abstained.abstains, abstained.seconds) == (True, 14.5)
    assert (wrong.correct, wrong.seconds) == (False, 3723.0)


BAD = {
    "header": (HEADER.replace("radius", "Radius") + "0\t3\t3\t0.3\t1\t1.0\n", "line 1: .*header"),
    "empty": ("", "line 1: .*header"),
    "no samples": (HEADER, "without samples"),
    "five columns": (HEADER + "0\t3\t3\t0.3\t1\n", "line 2: 5 columns"),
    "seven columns": (GOOD + "1\t3\t3\t0.3\t1\t1.0\t9\n", "line 5: 7 columns"),
    "blank line": (GOOD + "\n", "line 5: 1 columns"),
    "negative radius": (HEADER + "0\t3\t3\t-0.3\t1\t1.0\n", "line 2: radius"),
    "nan radius": (HEADER + "0\t3\t3\tnan\t1\t1.0\n", "line 2: radius"),
    "infinite radius": (HEADER + "0\t3\t3\tinf\t1\t1.0\n", "line 2: radius"),
    "fractional index": (HEADER + "0.5\t3\t3\t0.3\t1\t1.0\n", "line 2: idx"),
    "negative label": (HEADER + "0\t-1\t-1\t0.0\t1\t1.0\n", "line 2: label"),
    "correct but another class": (HEADER + "0\t3\t4\t0.3\t1\t1.0\n", "line 2: correct is 1, but predict is 4"),
    "wrong but the label": (HEADER + "0\t3\t3\t0.3\t0\t1.0\n", "line 2: correct is 0, but predict is 3"),
    "correct is yes": (HEADER + "0\t3\t3\t0.3\tyes\t1.0\n", "line 2: correct is 'yes'"),
    "abstains with a radius": (HEADER + "0\t3\t-1\t0.3\t0\t1.0\n", "line 2: abstains with a radius"),
    "time": (HEADER + "0\t3\t3\t0.3\t1\tnoon\n", "line 2: time"),
    "minute 61": (HEADER + "0\t3\t3\t0.3\t1\t0:61:00\n", "line 2: time"),
    "sample twice": (GOOD + "20\t3\t3\t0.3\t1\t1.0\n", "line 5: sample 20 is there twice"),
    "truncated": (GOOD[:-9], "line 4"),
    "not text": (b"\xff\xfe" + GOOD.encode(), "not plain text"),
    "class 11 of 10": (HEADER + "0\t11\t11\t0.3\t1\t1.0\n", "class 11 of a dataset with 10 classes"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_files_are_refused_in_one_line(tmp_path, case):
    text, message = BAD[case]
    with pytest.raises(DataError, match=message) as error:
        list(Cohen().read(file(tmp_path, text)))
    assert "\n" not in str(error.value)


def test_missing_paths_and_folders_without_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(Cohen().read(tmp_path / "nothing"))
    with pytest.raises(DataError, match="no CERTIFY files"):
        list(Cohen().read(tmp_path))
    with pytest.raises(DataError, match="smoothing noise"):
        list(Cohen().read(file(tmp_path, name="results.tsv")))


@given(st.floats(1e-4, 9.0))
def test_lower_is_below_every_radius_that_prints_alike(radius):
    printed = Decimal(f"{radius:.3}")
    lower = certified_lower(printed)
    assert lower < radius
    assert Fraction(lower) < Fraction(printed) - Fraction(printed_unit(printed)) / 2
    # ... and at most two doubles below it.
    assert Fraction(math.nextafter(math.nextafter(math.nextafter(lower, 9), 9), 9)) > (
        Fraction(printed) - Fraction(printed_unit(printed)) / 2
    )


@pytest.mark.parametrize(
    ("printed", "unit"),
    [("0.378", "0.001"), ("0.21", "0.001"), ("1.87", "0.01"), ("0.0186", "0.0001"), ("2.0", "0.01")],
)
def test_the_printed_unit_is_that_of_three_significant_digits(printed, unit):
    assert printed_unit(Decimal(printed)) == Decimal(unit)
    assert certified_lower(Decimal(printed)) == pytest.approx(float(Decimal(printed) - Decimal(unit) / 2), rel=1e-12)
    assert certified_lower(Decimal("0.0")) == 0.0


@given(st.sampled_from(CANDIDATES), st.sampled_from([0.12, 0.25, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_alpha_is_inferred_from_simulated_files_or_not_at_all(alpha, sigma, random):
    """Radii computed here from counts, printed like the authors' code: the α behind them, or None, never another."""
    n = 100_000
    hits = [n] * 40 + [n - random.randrange(30) for _ in range(80)]
    hits += [random.randrange(n // 2 + 500, n) for _ in range(200)]
    counted = np.array(hits)
    radii = [f"{r:.3}" for r in sigma * norm.ppf(beta.ppf(alpha, counted, n - counted + 1))]
    assert infer_alpha([Decimal(r) for r in radii], sigma, n) == alpha
    low = [Decimal(r) for r, k in zip(radii, hits, strict=True) if k < n * 0.99]
    assert infer_alpha(low, sigma, n) in (None, alpha)


def test_the_largest_radius_in_closed_form():
    # SOURCES 5.1: sigma Phi^-1(alpha ** (1 / n))
    for alpha in CANDIDATES:
        cap = 0.5 * norm.ppf(alpha ** (1 / 100_000))
        assert radii_of_counts(0.5, 100_000, alpha, 1)[0] == pytest.approx(cap, rel=1e-9)


def test_a_run_holds_what_the_file_says(tmp_path):
    (run,) = Cohen().read(file(published(tmp_path)).parent.parent)
    assert (run.classifier, run.dataset, run.split) == ("resnet110-noise-0.5 | smooth:sigma=0.25", "cifar10", "test")
    assert run.fingerprint.startswith("import:")
    rows = {(row["sample"], row["kind"]): row for row in run.evidence("20260101T000000Z-000000").to_pylist()}
    assert len(rows) == 5
    certified = rows[0, "certificate"]
    assert (certified["status"], certified["norm"], certified["eps"]) == ("certified", "l2", None)
    assert certified["lower"] == certified_lower(Decimal("0.378"))
    assert certified["detail"] == '{"radius_printed":"0.378"}'
    assert (certified["upper"], certified["confidence"], certified["forwards"]) == (math.inf, None, 100_100)
    abstained = rows[20, "certificate"]
    assert (abstained["status"], abstained["lower"], abstained["upper"]) == ("abstain", 0.0, 0.0)
    assert (rows[20, "clean"]["prediction"], rows[20, "clean"]["status"]) == (-1, "incorrect")
    wrong = rows[40, "clean"]
    assert (wrong["status"], wrong["lower"], wrong["upper"], wrong["forwards"]) == ("incorrect", 0.0, 0.0, 100_100)
    assert wrong["detail"] == '{"radius_printed":"0.0186"}'
    assert (40, "certificate") not in rows


def test_a_given_alpha_is_the_confidence(tmp_path):
    (run,) = Cohen(alpha=0.001).read(file(tmp_path))
    assert {row["confidence"] for row in run.evidence("20260101T000000Z-000000").to_pylist()} == {0.999}


def test_conformance(tmp_path):
    check_importer(Cohen(), file(published(tmp_path)).parent)


def test_the_command_imports_once_and_check_passes(tmp_path):
    source, out = file(published(tmp_path)).parent, tmp_path / "results"
    first = CliRunner().invoke(app, ["import", "cohen", str(source), "--out", str(out)])
    assert (first.exit_code, "imported" in first.stdout) == (0, True), first.output
    again = CliRunner().invoke(app, ["import", "cohen", str(source), "--out", str(out)])
    assert "is there already" in again.stdout
    (run,) = find_runs(out)
    assert (run.manifest.origin, run.manifest.trust, run.manifest.complete) == ("imported", "imported", True)
    assert str(tmp_path) not in run.manifest.to_json().decode()
    assert check([run]).findings == ()
    changed = file(published(tmp_path), GOOD.replace("0.378", "0.379"))
    assert CliRunner().invoke(app, ["import", "cohen", str(changed), "--out", str(out)]).exit_code == 0
    assert len(find_runs(out)) == 2


def test_nothing_is_written_where_a_file_is_bad(tmp_path):
    file(published(tmp_path))
    file(published(tmp_path), HEADER + "bad\n", "sigma_0.50")
    outcome = CliRunner().invoke(app, ["import", "cohen", str(tmp_path), "--out", str(tmp_path / "results")])
    assert outcome.exit_code == 2
    assert not (tmp_path / "results").exists()


def test_parameters_are_checked():
    with pytest.raises(SpecError):
        load_plugins().resolve("importers", "cohen:dataset=mnist")
    with pytest.raises(SpecError):
        load_plugins().resolve("importers", "cohen:alpha=0")


PUBLISHED = {  # SOURCES 5.1; radii .25 .5 .75 1 1.25 1.5 2
    "0.12": (0.8140, 0.0380, 0.2701, (0.586, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "0.25": (0.7480, 0.0860, 0.4289, (0.600, 0.428, 0.266, 0.0, 0.0, 0.0, 0.0)),
    "0.50": (0.6520, 0.1660, 0.5375, (0.546, 0.414, 0.320, 0.234, 0.152, 0.094, 0.0)),
    "1.00": (0.4720, 0.2900, 0.5417, (0.392, 0.340, 0.278, 0.216, 0.174, 0.140, 0.100)),
}
# noise, sigma -> α that the discrete radii show
ALPHAS = {
    ("0.12", "0.12"): 0.001,
    ("0.25", "0.25"): 0.01,
    ("0.50", "0.50"): 0.01,
    ("1.00", "0.50"): 0.001,
    ("1.00", "1.00"): None,
    ("0.12", "0.50"): None,
    ("0.25", "0.50"): None,
}


def authors(data_folder, noise, sigma):
    return data_folder / "smoothing" / "cifar10" / "resnet110" / f"noise_{noise}" / "test" / f"sigma_{sigma}"


def figures(path):
    """A file's figures as the paper computes them: fractions of all samples, ≥ on the printed radius."""
    lines = read_lines(path)
    n = len(lines)
    right = [Fraction(line.radius) for line in lines if line.correct]
    return SimpleNamespace(
        n=n,
        clean=len(right) / n,
        abstain=sum(line.abstains for line in lines) / n,
        acr=float(sum(right)) / n,
        certified={r: sum(radius >= Fraction(r) for radius in right) / n for r in EPS},
    )


@pytest.mark.data
@pytest.mark.parametrize("sigma", PUBLISHED)
def test_published_table(data_folder, sigma):
    clean, abstain, acr, certified = PUBLISHED[sigma]
    found = figures(authors(data_folder, sigma, sigma))
    assert (found.n, found.clean, found.abstain) == (500, clean, abstain)
    assert round(found.acr, 4) == acr
    assert tuple(found.certified.values()) == certified


@pytest.mark.data
def test_the_blog_table_is_not_the_authors(data_folder):
    """SOURCES 1.6-1: clean / certified at .5 per σ; the blog's 22 % at σ = 1 is the value at R = 1."""
    expected = {"0.12": (0.814, 0.0), "0.25": (0.748, 0.428), "0.50": (0.652, 0.414), "1.00": (0.472, 0.340)}
    for sigma, (clean, half) in expected.items():
        found = figures(authors(data_folder, sigma, sigma))
        assert (found.clean, found.certified["0.5"]) == (clean, half)
    assert figures(authors(data_folder, "1.00", "1.00")).certified["1"] == 0.216


@pytest.mark.data
def test_alpha_of_the_authors_files(data_folder):
    for (noise, sigma), alpha in ALPHAS.items():
        lines = read_lines(authors(data_folder, noise, sigma))
        assert infer_alpha([line.radius for line in lines], float(sigma), 100_000) == alpha, (noise, sigma)


@pytest.mark.data
def test_the_authors_files_as_evidence(data_folder, tmp_path):
    for imported in Cohen().read(data_folder / "smoothing"):
        write(imported, tmp_path)
    runs = find_runs(tmp_path)
    assert len(runs) == 7
    assert check(runs).findings == ()
    names = {f"resnet110-noise-{float(s)} | smooth:sigma={float(s)}": s for s in PUBLISHED}
    seen = set()
    for result in results(runs):
        if result.subject.classifier not in names:
            continue
        sigma = names[result.subject.classifier]
        clean, _, _, certified = PUBLISHED[sigma]
        at = certified[("0.25", "0.5", "0.75", "1", "1.25", "1.5", "2").index(result.eps.text)]
        assert (result.n, result.clean.value, result.empirical) == (500, clean, None)
        # `lower` is half a printed unit below: at most the samples printed at exactly ε are lost.
        lines = read_lines(authors(data_folder, sigma, sigma))
        ties = sum(line.correct and line.radius == Decimal(result.eps.text) for line in lines)
        assert round(at * 500) - ties == result.certified.count
        seen.add((sigma, result.eps.text))
    assert len(seen) == 28
    files = np.unique([len(run.evidence()) for run in runs])
    assert len(files) > 1  # differing row counts


@pytest.mark.data
def test_differing_row_counts_and_truncated_copies(data_folder, tmp_path):
    text = authors(data_folder, "0.50", "0.50").read_text()
    short = file(tmp_path, "".join(text.splitlines(keepends=True)[:101]), "sigma_0.50")
    (run,) = Cohen().read(short)
    assert len(run.sample) == 100
