"""Attacks that trust certificates: what they skip, what is audited, and what a wrong certificate comes to."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from oracles.nets import blobs, trained
from robench.api import evaluate
from robench.audit import AUDIT, audited, share_of
from robench.check import check
from robench.cli import app
from robench.contracts import Certificates, Proposal
from robench.errors import InputError
from robench.evaluation import _execute
from robench.metrics import results
from robench.report import result_lines
from robench.runner import evaluate_chunk as chunk
from robench.runs import find_runs
from robench_plugins.verify.ibp import IBP

EPS = ["0.02", "0.05"]
SHORT = {"eps": EPS, "attacks": ["pgd:steps=10"], "certifiers": ["ibp"]}


@dataclass(frozen=True)
class Liar:
    """Certifies the samples whose first coordinate lies above a threshold, at any ε."""

    above: float = 0.0
    per_eps = True
    confidence: float = 1.0

    def certify(self, classifier, x, y, threat, stream):
        sure = x.flatten(1)[:, 0] > self.above
        status = ["certified" if one else "open" for one in sure.tolist()]
        confidence = torch.full((len(x),), self.confidence, dtype=torch.float64)
        return Certificates(torch.where(sure, threat.eps, 0.0).double(), status, confidence)


@dataclass(frozen=True)
class Far:
    """A minimum-norm attack: it runs to the far corner of the domain."""

    per_eps = False
    access = "nothing"

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal((x < 0.5).to(x), [{"far": True}] * len(x))


def attacked(evaluation, eps):
    """The samples that an attack searched at ε."""
    rows = evaluation.evidence
    return set(rows[(rows["kind"] == "attack") & (rows["eps"].isna() | (rows["eps"] == eps))]["sample"])


def certified(evaluation, eps):
    rows = evaluation.evidence
    return set(rows[rows["kind"].isin(["certificate", "verifier"]) & (rows["lower"] >= eps)]["sample"])


def marked(evaluation):
    """(sample, ε) of the rows that check a certificate."""
    rows = evaluation.evidence[evaluation.evidence["kind"] == "attack"]
    told = [json.loads(detail or "{}").get("audited") is True for detail in rows["detail"]]
    return set(zip(rows[told]["sample"], rows[told]["eps"], strict=True))


@given(st.integers(-(2**40), 2**40), st.sampled_from([0.05, 0.3, 0.9]))
def test_the_audit_is_drawn_for_each_sample_on_its_own(seed, share):
    everything = audited(seed, share, range(4000))
    deviation = (share * (1 - share) / 4000) ** 0.5
    assert abs(everything.mean() - share) < 6 * deviation
    some = np.array([3999, 17, 5])
    assert audited(seed, share, some.tolist()).tolist() == everything[some].tolist()
    assert not (everything & ~audited(seed, min(1.0, share + 0.1), range(4000))).any()  # a larger share audits more


def test_other_seeds_audit_other_samples():
    one, other = audited(0, 0.5, range(4000)), audited(1, 0.5, range(4000))
    assert 0.4 < (one == other).mean() < 0.6


@pytest.mark.parametrize(("given", "share"), [(None, None), (False, None), (True, AUDIT), (0.5, 0.5), (1, 1.0)])
def test_shares(given, share):
    assert share_of(given) == share


@pytest.mark.parametrize("given", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_an_audit_of_nothing_is_refused(given):
    with pytest.raises(InputError, match="give a share above 0, up to 1"):
        evaluate(trained(), blobs(), eps="0.05", trust_certificates=given, out="nowhere")


def test_attacks_skip_what_is_certified_and_nothing_else_changes(tmp_path):
    """The full run is the truth: same verdicts, same figures; missing are attacks on certified samples not audited."""
    full = evaluate(trained(), blobs(), out=tmp_path / "full", **SHORT)
    some = evaluate(trained(), blobs(), out=tmp_path / "some", trust_certificates=0.3, **SHORT)
    drawn = set(np.flatnonzero(audited(0, 0.3, range(60))).tolist())
    for eps in (0.02, 0.05):
        proven = certified(full, eps)
        assert proven == certified(some, eps)
        first = min(certified(full, 0.02))
        assert attacked(full, eps) - attacked(some, eps) == proven - drawn - {first}
        assert {sample for sample, at in marked(some) if at == eps} == (drawn | {first}) & proven
    assert marked(full) == set()
    assert len(certified(full, 0.02) - drawn) > 5  # it skips something
    for one, other in zip(full.summary["results"], some.summary["results"], strict=True):
        for name in ("clean_accuracy", "certified_accuracy", "empirical_accuracy", "contradictions", "errors"):
            assert one[name] == other[name]
        assert one["audit"] is None
        proven, searched = certified(some, one["eps_value"]), attacked(some, one["eps_value"])
        assert other["audit"] == {
            "skipped": len(proven - searched),
            "audited": len(proven & searched),
            "broken": (),
            "certifiers": (),
        }
        assert {flag["code"] for flag in other["flags"]} - {flag["code"] for flag in one["flags"]} == {"trusted"}
    assert check([some.run]).findings == ()
    assert some.run.manifest.request.audit == 0.3
    assert "--trust-certificates --audit 0.3" in some.run.manifest.command


def test_no_cost_is_claimed(tmp_path):
    full = evaluate(trained(), blobs(), out=tmp_path / "full", **SHORT)
    some = evaluate(trained(), blobs(), out=tmp_path / "some", trust_certificates=True, **SHORT)
    paid, free = ("\n".join(result_lines(results([one.run]))) for one in (full, some))
    assert "passes a sample" in paid and "no cost claimed" not in paid
    assert free.count("no cost claimed") == 2 and "passes a sample" not in free


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_have_no_say(tmp_path, size):
    done = evaluate(trained(), blobs(), out=tmp_path, trust_certificates=0.1, batch_size=size, **SHORT)
    drawn = set(np.flatnonzero(audited(0, 0.1, range(60))).tolist())
    proven = certified(done, 0.02)
    assert attacked(done, 0.02) & proven == (drawn | {min(proven)}) & proven


def test_the_first_certified_sample_is_always_audited(tmp_path):
    """Too few are certified for a draw to hit one: of three, at 0.1 %, one is attacked, whatever the batch."""
    x = np.asarray(blobs().x)[:, 0]
    above = float(np.sort(x)[-4])
    for size in (1, 60):
        settings = {**SHORT, "certifiers": [Liar(above)], "batch_size": size, "trust_certificates": 0.001}
        done = evaluate(trained(), blobs(), out=tmp_path / str(size), **settings)
        proven = certified(done, 0.02)
        assert len(proven) > 1
        assert attacked(done, 0.02) & proven == {min(proven)}


def test_a_resumed_run_audits_the_same_samples(tmp_path, monkeypatch):
    settings = {**SHORT, "trust_certificates": 0.001, "batch_size": 10}
    whole = evaluate(trained(), blobs(), out=tmp_path / "whole", **settings)
    seen = []

    def stop(*arguments):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(arguments)
        return chunk(*arguments)

    monkeypatch.setattr(_execute, "evaluate_chunk", stop)
    monkeypatch.setattr(_execute, "COMMIT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained(), blobs(), out=tmp_path / "killed", **settings)
    monkeypatch.undo()
    other = evaluate(trained(), blobs(), out=tmp_path / "killed", resume=True, **{**settings, "trust_certificates": 1})
    again = evaluate(trained(), blobs(), out=tmp_path / "killed", resume=True, **settings)
    assert other.run.manifest.run != again.run.manifest.run  # another request
    assert len(find_runs(tmp_path / "killed")) == 2
    assert marked(again) == marked(whole) and attacked(again, 0.05) == attacked(whole, 0.05)


def test_a_certificate_that_the_audit_breaks_is_named_loudly(tmp_path):
    done = evaluate(
        trained(), blobs(), eps="0.3", attacks=["pgd:steps=10"], certifiers=[Liar(-1.0)], out=tmp_path,
        trust_certificates=0.5,
    )  # fmt: skip
    (result,) = done.summary["results"]
    broken = result["audit"]["broken"]
    assert broken and set(broken) <= attacked(done, 0.3)
    (name,) = result["audit"]["certifiers"]
    assert "Liar" in name
    (flag,) = (flag for flag in result["flags"] if flag["code"] == "audit-failed")
    assert "do not trust the certificates of" in flag["text"] and name in flag["text"]
    assert result["contradictions"] == len(broken)
    assert not results([done.run])[0].rankable
    findings = check([done.run]).findings
    assert {finding.code for finding in findings} == {"contradiction"}
    assert {finding.sample for finding in findings} == set(broken)


def test_probable_certificates_are_not_trusted(tmp_path):
    settings = {"eps": "0.05", "attacks": ["pgd:steps=5"], "certifiers": [Liar(-1.0, confidence=0.999)]}
    done = evaluate(trained(), blobs(), out=tmp_path, trust_certificates=0.1, **settings)
    correct = set(done.evidence[done.evidence["status"] == "correct"]["sample"])
    assert attacked(done, 0.05) == correct
    assert marked(done) == set()


def test_a_minimum_norm_attack_skips_what_is_certified_at_the_largest_budget(tmp_path):
    settings = {"eps": EPS, "attacks": [Far()], "certifiers": ["ibp"]}
    done = evaluate(trained(), blobs(), out=tmp_path, trust_certificates=0.2, **settings)
    correct = set(done.evidence[done.evidence["status"] == "correct"]["sample"])
    drawn = set(np.flatnonzero(audited(0, 0.2, range(60))).tolist()) | {min(certified(done, 0.02))}
    assert attacked(done, 0.05) == correct - (certified(done, 0.05) - drawn)
    assert check([done.run]).findings == ()


def test_a_row_that_the_audit_asks_for_is_missed(tmp_path):
    """An edited manifest that trusts what it never audited: the samples drawn from its seed have no attack's row."""
    done = evaluate(trained(), blobs(), out=tmp_path, trust_certificates=0.1, **SHORT)
    manifest = done.run.manifest
    lax = manifest.replace(request=manifest.request.model_copy(update={"audit": 0.9}))
    done.run.manifest = lax
    codes = {finding.code for finding in check([done.run]).findings}
    assert codes == {"missing"}


def test_the_command(tmp_path):
    base = ["eval", "-m", "digits-ibp", "-d", "digits | subset:n=30", "-c", "ibp", "-a", "pgd:steps=3", "--eps", "0.05"]
    out = ["--out", str(tmp_path), "-q"]
    refused = CliRunner().invoke(app, [*base, *out, "--audit", "0.1"])
    assert refused.exit_code == 2 and "add --trust-certificates" in refused.stderr
    plan = CliRunner().invoke(app, [*base, *out, "--trust-certificates", "--dry-run", "--json"])
    assert json.loads(plan.stdout)["request"]["audit"] == AUDIT
    done = CliRunner().invoke(app, [*base, *out, "--trust-certificates", "--audit", "0.2", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["results"][0]["audit"]["broken"] == []


@pytest.mark.parametrize("command", ["eval", "run"])
def test_commands_say_it_and_exit_1_where_an_audit_fails(tmp_path, monkeypatch, command):
    def lie(self, classifier, x, y, threat, stream):
        return Certificates(torch.full((len(x),), threat.eps, dtype=torch.float64), ["certified"] * len(x))

    monkeypatch.setattr(IBP, "certify", lie)
    words = ["-m", "digits-standard", "-d", "digits | subset:n=20", "-c", "ibp", "-a", "pgd:steps=10", "--eps", "0.2"]
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'trust_certificates = true\n[[evaluations]]\nmodels = "digits-standard"\ndatasets = "digits | subset:n=20"\n'
        'threats = { norm = "linf", eps = "0.2" }\nattacks = "pgd:steps=10"\ncertifiers = "ibp"\n'
    )
    words = [*words, "--trust-certificates"] if command == "eval" else [str(suite)]
    words = [command, *words, "--out", str(tmp_path / "out"), "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "THE AUDIT FAILED" in done.stderr and "do not trust the certificates of ibp" in done.stderr
    assert command == "run" or "audit-failed: do not trust the certificates of ibp" in done.stdout
