import itertools

import numpy as np
import pytest

from robench.check import check
from robench.importing import ImportedRows, ImportedRun, write

INF = np.inf
EPS = 0.1
WORDS = {  # status, lower, upper of one tool's answer about one sample
    "proves": ("certified", EPS, INF),
    "claims": ("falsified", 0.0, INF),
    "shows": ("falsified", 0.0, EPS),
    "waits": ("timeout", 0.0, INF),
}


def tool(name, answers, label=3, eps=EPS):
    """One tool's run over the same network: sample -> what it says about it."""
    sample = np.array(sorted(answers))
    status, lower, upper = zip(*(WORDS[answers[i]] for i in sorted(answers)), strict=True)
    return ImportedRun(
        classifier="net",
        net="net",
        source="https://example.org",
        dataset="set",
        split="instances",
        classes=10,
        sample=sample,
        label=np.full(len(sample), label),
        prediction=np.full(len(sample), label),
        rows=[
            ImportedRows(
                evaluator=name,
                kind="verifier",
                norm="linf",
                eps=eps,
                sample=sample,
                status=status,
                lower=np.where(np.array(lower) == EPS, eps, lower),
                upper=np.where(np.array(upper) == EPS, eps, upper),
            )
        ],
        norm="linf",
        eps=[str(eps)],
        names={int(i): f"prop_{i}" for i in sample},
    )


def found(tmp_path, *tools):
    return check([write(one, tmp_path)[0] for one in tools]).findings


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations_with_replacement(WORDS, 2)))
def test_two_tools_about_one_sample(tmp_path, first, second):
    """A proof meets a point: contradiction; a proof meets a bare claim: disagreement; all else goes together."""
    findings = found(tmp_path, tool("one", {7: first}), tool("two", {7: second}))
    expected = {("proves", "claims"): ["disagreement"], ("proves", "shows"): ["contradiction"]}
    assert [finding.code for finding in findings] == expected.get((first, second), [])
    for finding in findings:
        assert (finding.sample, finding.norm, finding.evaluators) == (7, "linf", ("one", "two"))
        assert "sample 7 (prop_7) of net" in finding.text


def test_both_sides_are_counted_and_named(tmp_path):
    provers = [tool(name, {0: "proves", 1: "proves"}) for name in ("p", "q", "r")]
    breakers = [tool(name, {0: "claims", 1: "waits"}) for name in ("x", "y")]
    (finding,) = found(tmp_path, *provers, *breakers)
    assert finding.values == {"eps": EPS, "certify": 3, "falsify": 2}
    assert "certified by 3 (p, q, r)" in finding.text and "by 2 (x, y)" in finding.text
    assert len(finding.runs) == 5


def test_a_point_settles_what_was_a_claim(tmp_path):
    """With a point, both who proved are named, and the claim of a third tool adds no second finding."""
    liars = [tool(name, {0: "proves"}) for name in ("liar", "rogue")]
    (finding,) = found(tmp_path, *liars, tool("seer", {0: "shows"}), tool("sayer", {0: "claims"}))
    assert (finding.code, finding.evaluators) == ("contradiction", ("liar", "rogue", "seer"))
    assert all(name in finding.text for name in ("liar", "rogue", "seer"))


@pytest.mark.parametrize(("radius", "codes"), [(0.09, []), (0.1, ["disagreement"]), (0.2, ["disagreement"])])
def test_a_proof_counts_from_its_own_radius_on(tmp_path, radius, codes):
    findings = found(tmp_path, tool("one", {0: "proves"}, eps=radius), tool("two", {0: "claims"}))
    assert [finding.code for finding in findings] == codes


@pytest.mark.parametrize(("labels", "codes"), [((3, 3), []), ((3, -1), []), ((3, 4), ["clean", "clean"])])
def test_a_label_that_is_not_told_is_no_other_label(tmp_path, labels, codes):
    findings = found(tmp_path, *(tool(f"t{label}{i}", {0: "waits"}, label) for i, label in enumerate(labels)))
    assert [finding.code for finding in findings] == codes
