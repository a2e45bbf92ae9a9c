"""fast: a search in lower precision never ends on an error that is none, is counted, and leaves no setting behind."""

import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robench
from oracles.random_linear import RandomLinear
from robench.classifier import Counted, margins
from robench.contracts import CompositeAttack, Outcome, Proposal
from robench.errors import SpecError
from robench.graph import GraphClassifier, from_torch, full_precision
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks import _cheap
from robench_plugins.attacks._cheap import SPACING, CheapView, compiled, pieces, reduced
from robench_plugins.attacks.fast import Fast
from robench_plugins.attacks.probe import Probe

MATMUL, CONV = torch.backends.cuda.matmul, torch.backends.cudnn
EPS = {"linf": 0.06, "l2": 0.3, "l1": 0.8}


def attack(spec):
    return load_plugins().resolve("attacks", spec).value


def settings():
    """Everything that a search in lower precision might leave behind."""
    return (
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_grad_enabled(),
        MATMUL.allow_tf32,
        CONV.allow_tf32,
    )


def net(inputs=12, classes=4, seed=0):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(inputs, 24), torch.nn.ReLU(), torch.nn.Linear(24, classes))
    return GraphClassifier(from_torch(module.eval(), (inputs,)))


def samples(model, n=24):
    x = torch.rand(n, *model.input_shape, generator=torch.Generator().manual_seed(1))
    return x, model.logits(x).argmax(1)


def perturb(spec, model, x, y, norm="linf", eps=None, rows=None, seed=0):
    value = attack(spec) if isinstance(spec, str) else spec
    rows = torch.arange(len(x)) if rows is None else rows
    threat = Threat(norm, (EPS[norm] if eps is None else eps) if value.per_eps else None, Domain(0.0, 1.0))
    return value.perturb(model, x[rows], y[rows], threat, Stream.for_samples(seed, "a | fast", rows.tolist()))


class Recording:
    """A classifier that notes the settings under which it is asked, forwards and backwards."""

    def __init__(self, inner):
        self.inner, self.ahead, self.back = inner, [], []
        for name in ("input_shape", "classes", "dtype", "device", "fingerprint", "graph"):
            setattr(self, name, getattr(inner, name))

    def logits(self, x):
        self.ahead.append(settings())
        out = self.inner.logits(x)
        if out.requires_grad:
            out.register_hook(lambda _: self.back.append(settings()))
        return out


class Liar(Recording):
    """Under autocast the logits are what `lie` makes of them and the exact margin."""

    def __init__(self, inner, lie):
        super().__init__(inner)
        self.lie, self.graph = lie, None

    def logits(self, x):
        out = super().logits(x)
        return self.lie(out) if torch.is_autocast_enabled("cpu") else out


@pytest.fixture
def eager(monkeypatch):
    """Programs traced, cut and kept as for a GPU, but not translated: a compiler takes half a minute for each."""
    monkeypatch.setattr(_cheap, "_BACKEND", "eager")


# ------------------------------------------------------------------------------------------------ the view


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_logits_and_gradients_are_those_of_lower_precision_in_the_classifiers_dtype(precision):
    model = net()
    x, _ = samples(model)
    view, vector = CheapView(model, precision), torch.randn(len(x), 4)

    def slope(of):
        point = x.clone().requires_grad_()
        return torch.autograd.grad(of.logits(point), point, vector)[0]

    exact = model.logits(x)
    for logits in (view.logits(x), view.logits(x.clone().requires_grad_())):
        assert logits.dtype == torch.float32
        gap = float(((logits - exact).abs().max() / exact.abs().max()).detach())
        assert SPACING[precision] / 100 < gap < 2 * SPACING[precision]
    there, here = slope(view), slope(model)
    assert there.dtype == torch.float32
    # Most rows: where a ReLU stands close to 0 its slope is another.
    gap = (there - here).norm(dim=1) / here.norm(dim=1)
    assert 0 < float(gap.median()) < 2 * SPACING[precision]
    assert not view.logits(x).requires_grad
    assert view.logits(x[:0]).shape == (0, 4)


def test_small_slopes_survive_half_precision():
    model = net()
    x, _ = samples(model)
    view, vector = CheapView(model, "fp16"), torch.randn(len(x), 4)
    point = x.clone().requires_grad_()
    logits = view.logits(point)
    whole, small, none = (
        torch.autograd.grad(logits, point, scale * vector, retain_graph=True)[0] for scale in (1.0, 2.0**-60, 0.0)
    )
    assert torch.equal(small, whole * 2.0**-60)
    assert not none.any()


def test_float64_stays_as_it_is():
    model = GraphClassifier(net().graph, dtype=torch.float64)
    x = samples(net())[0].double()
    for precision in ("bf16", "fp16", "tf32"):
        assert torch.equal(CheapView(model, precision).logits(x), model.logits(x))


@given(st.integers(0, 3000))
def test_batches_are_cut_into_few_sizes(count):
    made = list(pieces(count))
    assert [row for start, stop, _ in made for row in range(start, stop)] == list(range(count))
    assert {size for *_, size in made} <= {16, 64, 256}
    assert sum(size for *_, size in made) - count < 16
    assert all(stop - start <= size for start, stop, size in made)


def test_what_fills_a_batch_up_changes_and_costs_nothing(eager):
    model = net()
    x, _ = samples(model, 300)
    x[7] = torch.nan
    x[299] = torch.nan  # the row that copies are made of
    counted = Counted(model)
    view = CheapView(counted, "full", compiled(counted))
    point = x.clone().requires_grad_()
    logits = view.logits(point)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), point)
    assert counted.take() == (300, 300)
    reference = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.logits(reference)[:, 0].sum(), reference)
    torch.testing.assert_close(logits.detach(), model.logits(x), equal_nan=True)
    torch.testing.assert_close(gradient, expected, equal_nan=True)
    for rows in (torch.tensor([5]), torch.arange(40), torch.arange(299).flip(0)):
        torch.testing.assert_close(view.logits(x[rows]), model.logits(x[rows]), equal_nan=True)
        assert counted.take() == (len(rows), 0)


def test_gradients_may_be_taken_again(eager):
    # One backward pass per class, through logits asked for once: as fab and deepfool do.
    model = net()
    x, _ = samples(model)
    for run in (None, compiled(model)):
        point, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        there, here = CheapView(model, "full", run).logits(point), model.logits(other)
        for k in range(3):
            (found,) = torch.autograd.grad(there[:, k].sum(), point, retain_graph=True)
            (expected,) = torch.autograd.grad(here[:, k].sum(), other, retain_graph=True)
            torch.testing.assert_close(found, expected)


def test_one_classifiers_programs_do_not_use_up_anothers(eager):
    for seed in range(10):
        model = net(seed=seed)
        x, _ = samples(model)
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch.testing.assert_close(CheapView(model, "full", compiled(model)).logits(x), model.logits(x))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.filterwarnings("default")
def test_it_runs_really_compiled():
    model = net()
    x, y = samples(model, 16)
    plain, fast = (perturb(spec, model, x, y).points for spec in ("fgsm", "fgsm | fast:precision=full,compile=true"))
    assert (plain - fast).abs().max() < 1e-5


# ----------------------------------------------------------------------------------------------- the search


@pytest.mark.parametrize("spec", ["apgd:steps=12", "pgd:steps=12,targets=2", "fab:restarts=1,steps=8,targets=2"])
@pytest.mark.parametrize("lie", [lambda z: -z, lambda z: z * torch.nan, lambda z: z * 1e-3 - 1e3 * torch.sign(z)])
def test_a_search_that_ends_on_an_error_that_is_none_is_made_again(spec, lie):
    # Lower precision takes every sample for broken, or for no number: the search ends at once.
    model = net()
    x, y = samples(model)
    plain, fast = perturb(spec, model, x, y), perturb(f"{spec} | fast", Liar(model, lie), x, y)
    left = margins(model.logits(plain.points), y) > 0
    assert 0 < left.sum() < len(x) or "fab" in spec
    assert torch.equal(margins(model.logits(fast.points), y) > 0, left)
    assert (fast.points - plain.points)[left].abs().max() < 1e-6 if left.any() else True
    assert all(fast.detail[row]["searched_again"] for row in left.nonzero()[:, 0].tolist())


def test_errors_that_lower_precision_misses_are_proposed_and_searched_for_once():
    # The margin stands 1000 too high: nothing looks broken, and the lowest point met is an error all the same.
    model = net()
    x, y = samples(model)
    high = torch.nn.functional.one_hot(y, 4) * 1000.0
    liar = Liar(model, lambda z: z + high if len(z) == len(high) else z)
    value = attack("apgd:steps=12,loss=margin | fast")
    made = perturb(value, liar, x, y)
    plain = perturb("apgd:steps=12,loss=margin,early_exit=false", model, x, y)
    wrong = margins(model.logits(plain.points), y) <= 0
    assert (margins(model.logits(made.points), y) <= 0)[wrong].all()
    assert not any("searched_again" in made.detail[row] for row in wrong.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("how", ["bf16", "fp16", "tf32", "full,compile=true", "bf16,compile=true"])
def test_it_leaves_what_the_exact_search_leaves_and_counts_every_pass(eager, norm, how):
    model = net()
    x, y = samples(model, 40)
    plain = perturb("apgd:steps=20", model, x, y, norm)
    counted = Counted(model)
    made = perturb(f"apgd:steps=20 | fast:precision={how}", counted, x, y, norm)
    left, expected = (margins(model.logits(one.points), y) > 0 for one in (made, plain))
    assert torch.equal(left, expected)
    forwards, backwards = counted.take()
    assert (forwards, backwards) == (int(made.passes.forwards.sum()), int(made.passes.backwards.sum()))
    again = torch.tensor(["searched_again" in one for one in made.detail])
    extra = made.passes.forwards - made.passes.backwards
    assert (extra[left & ~again] >= 3).all()  # the last look, the exact answer, and the one beside it
    assert (made.passes.forwards >= 2).all()


@pytest.mark.parametrize("spec", ["apgd:steps=8 | fast:precision=bf16", "pgd:steps=8,targets=1 | fast:compile=true"])
def test_points_do_not_depend_on_the_batch(eager, spec):
    model = net()
    x, y = samples(model, 40)
    whole = perturb(spec, model, x, y)
    broken = margins(model.logits(whole.points), y) <= 0
    assert 0 < broken.sum() < len(x)
    differ = 0
    for rows in (torch.arange(40).flip(0), torch.tensor([3]), torch.arange(2, 19)):
        part = perturb(spec, model, x, y, rows=rows)
        assert torch.equal(margins(model.logits(part.points), y[rows]) <= 0, broken[rows])
        differ += int(((part.points - whole.points[rows]).abs().amax(1) > 1e-6).sum())
    assert differ <= 3  # another rounding may go another way


def test_no_samples_cost_nothing():
    counted = Counted(net())
    made = perturb("apgd:steps=5 | fast", counted, torch.rand(0, 12), torch.zeros(0, dtype=torch.int64))
    assert made.points.shape == (0, 12)
    assert counted.take() == (0, 0)


def test_minimum_norm_attacks_end_as_near():
    model = net()
    x, y = samples(model)
    made, plain = (perturb(f"fmn:steps=30{more}", model, x, y, "l2") for more in (" | fast", ""))
    wrong = margins(model.logits(plain.points), y) <= 0
    assert torch.equal(margins(model.logits(made.points), y) <= 0, wrong)
    there, here = ((one.points - x).norm(dim=1)[wrong] for one in (made, plain))
    assert (there < 1.02 * here).all()


def test_health_is_not_measured_in_lower_precision():
    class Measuring(robench.Attack):
        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(x, [{"health": {"a": 1}, "b": 2}] * len(x))

    model = net()
    x, y = samples(model)
    made = perturb(Fast().modify(Measuring()), model, x, y)
    for one in made.detail:
        assert one == ({"health": {"a": 1}, "b": 2, "searched_again": True} if "searched_again" in one else {"b": 2})
    assert made.passes is None


# ----------------------------------------------------------------------------------- settings of the process


def test_lower_precision_reaches_both_ways_and_no_further():
    model = net()
    x, y = samples(model)
    before = settings()
    assert before[:2] == (False, False)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        seen = Recording(model)
        CheapView(seen, precision).logits(x)
        assert seen.ahead[0][0] is True
        assert seen.ahead[0][2] == dtype
    MATMUL.allow_tf32 = CONV.allow_tf32 = False
    try:
        seen = Recording(model)
        point = x.clone().requires_grad_()
        logits = CheapView(seen, "tf32").logits(point)
        assert settings()[-2:] == (False, False)
        torch.autograd.grad(logits.sum(), point)
        assert [one[-2:] for one in seen.ahead + seen.back] == [(True, True)] * 2
        assert settings()[-2:] == (False, False)
        perturb("apgd:steps=3 | fast:precision=tf32", seen, x, y)
        assert seen.ahead[-1][-2:] in {(True, True), (False, False)}
        assert settings()[-2:] == (False, False)
    finally:
        MATMUL.allow_tf32, CONV.allow_tf32 = before[-2:]
    assert settings() == before


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
@pytest.mark.parametrize("way", ["ahead", "back"])
def test_settings_are_put_back_after_an_error(precision, way):
    class Failing(Recording):
        def logits(self, x):
            out = super().logits(x)
            if way == "ahead":
                raise RuntimeError("ahead")
            out.register_hook(lambda _: (_ for _ in ()).throw(RuntimeError("back")))
            return out

    model = net()
    x, y = samples(model)
    before = settings()
    value = attack(f"apgd:steps=3 | fast:precision={precision}")
    with pytest.raises(RuntimeError, match=way):
        perturb(value, Failing(model), x, y)
    assert settings() == before


def test_verdicts_after_a_search_in_tf32_inherit_none():
    """Of the user's own wish for TF32, say, which comes back where an explicit setting is taken away."""
    settings = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
    if not hasattr(torch.backends, "fp32_precision"):
        return
    with full_precision():
        with reduced("tf32", "cpu"):
            assert {one.fp32_precision for one in settings} == {"tf32"}
        assert {one.fp32_precision for one in settings} == {"ieee"}


def test_threads_that_leave_in_any_order_leave_no_tf32_behind():
    before = settings()
    first, second = reduced("tf32", "cpu"), reduced("tf32", "cpu")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert settings()[-2:] == (True, True)
    second.__exit__(None, None, None)
    assert settings() == before


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_verdicts_are_exact_whatever_the_process_has_set(precision, tmp_path):
    model = net(classes=3)
    x, y = samples(model, 30)
    data = robench.Samples(x.numpy(), y.numpy(), np.arange(30), Domain(0.0, 1.0), ("a", "b", "c"))
    seen = Recording(model)
    seen.graph = None  # every verdict then is an answer of `logits`
    before = settings()
    MATMUL.allow_tf32 = CONV.allow_tf32 = True  # what a user may have set
    try:
        robench.evaluate(seen, data, eps="0.06", attacks=[f"fgsm | fast:precision={precision}"], out=tmp_path)
        assert settings()[-2:] == (True, True)
    finally:
        MATMUL.allow_tf32, CONV.allow_tf32 = before[-2:]
    assert settings() == before
    lower = [one[0] or one[-1] for one in seen.ahead]
    # Randomness and clean answers; the search; the exact answer; the one beside it; verdicts, the last ones.
    assert sum(lower) in {2, 3, 4}
    assert not any(lower[-9:])
    assert all(one[0] or one[-1] for one in seen.back[:1])
    rows = robench.load(tmp_path)
    broken = rows[(rows.kind == "attack") & (rows.status == "falsified")]
    assert 3 < len(broken) < 30


def test_every_witness_is_one_at_full_precision(tmp_path):
    specs = ["apgd:steps=10 | fast:precision=bf16", "fmn:steps=10 | fast:precision=bf16"]
    data = "digits | subset:n=12"
    run = robench.evaluate("digits-pgd-l2", data, norm="l2", eps="0.6", attacks=specs, out=tmp_path).run
    replayed = robench.replay(run)
    assert replayed.witnesses >= 12
    assert replayed.problems == []


# ------------------------------------------------------------------------------------------ names and refusals


def test_what_an_attack_says_of_itself_stays():
    assert attack("square | fast").access == "logits"
    assert not attack("ddn | fast").per_eps
    assert attack("apgd | fast").applies(net(), "linf") is None
    assert attack("ddn | fast").applies(net(), "linf") == attack("ddn").applies(net(), "linf") is not None


def test_it_is_refused_where_nothing_is_to_be_had():
    array = robench.from_function(lambda x: x[:, :3], (12,), 3)
    opaque = SimpleNamespace(**{name: getattr(net(), name) for name in ("input_shape", "classes", "dtype", "device")})
    opaque.graph, opaque.logits, opaque.fingerprint = None, lambda x: x[:, :4] * 2, "0" * 64
    for spec, model, words in (
        ("apgd | fast", RandomLinear(), "write `ATTACK | fast | eot`"),
        ("square | fast", array, "beyond torch"),
        ("probe | fast", net(), "leave `| fast` out"),
        ("apgd | fast:compile=true", opaque, "no graph"),
    ):
        assert words in attack(spec).applies(model, "linf")
    assert attack("apgd | fast").applies(opaque, "linf") is None
    with pytest.raises(SpecError, match="leave the modifier out"):
        attack("apgd | fast:precision=full")
    with pytest.raises(SpecError, match="bf16, fp16, tf32, full"):
        attack("apgd | fast:precision=int8")


def test_it_is_never_applied_unasked():
    (group,) = [group for group in load_plugins().defaults("attack_modifiers") if group[0].distribution == "robench"]
    assert [entry.name for entry in group] == ["eot"]


def test_classifiers_that_draw_are_searched_through_eot():
    model = RandomLinear(sigma=1.0)
    data = model.samples(n=12)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    value = attack("apgd:steps=8 | fast | eot:draws=3")
    assert value.applies(model, "linf") is None
    counted = Counted(model)
    made = perturb(value, counted, x, y)
    assert counted.take() == (int(made.passes.forwards.sum()), int(made.passes.backwards.sum()))
    # Without early exit behind the modifier too: every sample makes all steps.
    assert (made.passes.backwards >= 3 * 8).all()


def test_every_stage_of_a_schedule_but_the_probe_is_modified():
    @dataclass(frozen=True)
    class Schedule(CompositeAttack):
        def stages(self, classifier, threat):
            assert not isinstance(classifier, CheapView)
            yield "probe", Probe(), None
            outcome = yield "fgsm", attack("fgsm"), None
            yield "pgd", attack("pgd"), outcome.broken

    model, threat = net(), Threat("linf", 0.1, Domain(0.0, 1.0))
    modifier = Fast(precision="bf16", compile=True)
    found = modifier.modify(Schedule()).stages(model, threat)
    count = torch.zeros(12, dtype=torch.int64)
    outcome = Outcome(count > 0, count.double(), count, count, [None] * 12)
    assert next(found) == ("probe", Probe(), None)
    spec, first, mask = found.send(outcome)
    assert (spec, mask) == ("fgsm | fast:compile=true,precision=bf16", None)
    assert first == modifier.modify(attack("fgsm"))
    broken = torch.arange(12) % 2 == 0
    spec, stage, mask = found.send(Outcome(broken, count.double(), count, count, [None] * 12))
    assert (spec, mask.tolist()) == ("pgd | fast:compile=true,precision=bf16", broken.tolist())
    assert stage.programs is first.programs  # each is compiled once for all stages
    with pytest.raises(StopIteration):
        found.send(outcome)
    found = Fast().modify(Schedule()).stages(model, threat)
    next(found)
    assert found.send(outcome)[0] == "fgsm | fast"


def test_the_default_attack_takes_it():
    model = net()
    value = attack("portfolio | fast")
    assert value.applies(model, "linf") is None
    assert next(value.stages(model, Threat("linf", 0.1, Domain(0.0, 1.0))))[0] == "probe"


def test_a_program_is_kept_for_the_next_batch(eager, monkeypatch):
    made = []
    kept = _cheap.compiled
    monkeypatch.setattr("robench_plugins.attacks.fast.compiled", lambda one: made.append(one) or kept(one))
    model, other = net(), net(seed=1)
    value = attack("fgsm | fast:compile=true")
    for one in (model, Counted(model), other):
        perturb(value, one, *samples(model))
    assert len(made) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["fp16", "bf16", "tf32", "bf16,compile=true"])
@pytest.mark.filterwarnings("default")
def test_a_gpu_leaves_what_the_exact_search_leaves(how):
    here = net()
    model = GraphClassifier(here.graph, "cuda")
    x, y = samples(here, 40)
    threat, x, y = Threat("linf", 0.06, Domain(0.0, 1.0)), x.cuda(), y.cuda()
    left = []
    for spec in ("apgd:steps=20", f"apgd:steps=20 | fast:precision={how}"):
        made = attack(spec).perturb(model, x, y, threat, Stream.for_samples(0, "a", range(40), "cuda"))
        assert made.points.is_cuda
        left.append(margins(model.logits(made.points), y) > 0)
    assert torch.equal(*left)
