"""The method page names every flag, every trust level and everybody who speaks in the results."""

import ast
from pathlib import Path
from typing import get_args

import robench
from oracles.bounds import fake_bound
from oracles.evidence import fake_run, toy_runs
from oracles.pages import Page, pages_of, site_of
from robench.metrics import BLOCKING, results
from robench.runs import Flag, PluginInfo, Trust
from robench_leaderboard._methods import FLAGS, TRUST, speakers_of


def codes_of_the_metrics() -> set[str]:
    """Every literal first argument of Flag(…) in robench.metrics."""
    found = set()
    for file in (Path(robench.__file__).parent / "metrics").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "Flag"
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(node.args[0].value)
    return found


def test_every_flag_has_a_meaning_and_says_whether_it_blocks():
    assert len(codes_of_the_metrics()) > 10
    assert [flag.code for flag in FLAGS] == sorted(codes_of_the_metrics())
    assert {flag.code for flag in FLAGS if flag.blocks} == BLOCKING


def test_every_trust_level_has_a_meaning():
    assert tuple(level.code for level in TRUST) == get_args(Trust)


def test_speakers_have_the_summaries_of_their_plugins():
    runs = toy_runs(n=4)
    manifest = runs[0].manifest
    infos = [
        info.model_copy(update={"plugins": (PluginInfo(name="pgd", distribution="robench", version="9.9"),)})
        for info in manifest.evaluators[:1]
    ]
    runs[0].manifest = manifest.replace(evaluators=(*infos, *manifest.evaluators[1:]))
    strange = fake_run(9, net="n", evaluators=(("mine:a=1#2", "attack"),)).clean({0: True})
    strange.add("mine:a=1#2", "attack", "linf", 0.1, {0: ("open", 0, float("inf"))})
    found = {
        one.name: one for one in speakers_of(results([*runs, strange]), [fake_bound({"0.1": 1.0}, name="oracle:x=1")])
    }
    assert list(found) == ["mine", "pgd", "ibp", "oracle"]
    assert "Madry" in found["pgd"].summary
    assert found["pgd"].plugin == "robench 9.9"
    assert found["pgd"].forms == ("pgd:restarts=5,steps=100",)
    assert (found["ibp"].kind, found["oracle"].kind) == ("certifier", "bound")
    assert found["mine"].summary == found["oracle"].summary == ""


def test_a_run_s_own_flags_and_everything_else_is_on_the_page(tmp_path):
    run = fake_run(0, n=1).clean({0: True})
    run.manifest = run.manifest.replace(flags=(Flag(code="my-own", text="words"),))
    page = pages_of(site_of(tmp_path, [run]))["methods.html"]
    for words in ("my-own", "robust radius", "Clopper", "McNemar", "ceiling", "robench check", *BLOCKING):
        assert words in page.text


def test_the_page_of_no_results_stands(tmp_path):
    from robench_leaderboard import build

    page = Page((build([], tmp_path / "site").parent / "methods.html").read_text("utf-8"))
    assert "Who speaks" not in page.text
