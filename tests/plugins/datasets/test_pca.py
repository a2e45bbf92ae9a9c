import numpy as np
import pytest
from sklearn.decomposition import PCA

from robench.errors import DataError
from robench.loading import load_data
from robench.registry import load_plugins
from robench.runs import DatasetInfo
from robench.samples import Samples
from robench.testing import check_transform
from robench.threat import Domain
from robench.training import train
from robench_plugins.datasets.digits import Digits
from robench_plugins.datasets.pca import Pca

TRAIN, TEST = Digits().load("train"), Digits().load("test")
FLAT = TRAIN.x[:].reshape(-1, 64).astype(np.float64)


class Arrays:
    """Splits given as arrays [N, ...]."""

    def __init__(self, **splits):
        self.splits = splits

    def load(self, split):
        x = np.asarray(self.splits[split], np.float32)
        n = len(x)
        return Samples(x, np.arange(n) % 2, np.arange(n), Domain.unbounded(), ("a", "b"))


def keep(*ranges, source=None):
    return Pca(ranges).apply(source or Digits())


def test_the_projection_is_that_of_another_implementation():
    """scikit-learn's components of the training split; its inverse transform with the dropped coordinates at 0."""
    other = PCA(svd_solver="full").fit(FLAT)
    kept = np.r_[0:5, 9:20]
    for split, samples in (("train", TRAIN), ("test", TEST)):
        flat = samples.x[:].reshape(-1, 64).astype(np.float64) - other.mean_
        wanted = flat @ other.components_[kept].T @ other.components_[kept] + other.mean_
        found = keep("1-5", "10-20").load(split)
        assert np.allclose(found.x[:].reshape(-1, 64), wanted, atol=1e-6)
        assert found.facts["variance_explained"] == pytest.approx(other.explained_variance_ratio_[kept].sum(), abs=1e-9)


def test_components_are_counted_from_one_by_their_variance():
    rng = np.random.default_rng(0)
    axes = np.diag([1.0, 8.0, 2.0, 4.0])  # the second coordinate varies most, then the fourth, the third, the first
    signs = np.array([[1 if row >> bit & 1 else -1 for bit in range(4)] for row in range(16)])
    x = signs @ axes + 100  # exactly uncorrelated, mean 100
    source = Arrays(train=x, test=rng.normal(size=(5, 4)))
    first = keep("1", source=source).load("train").x[:]
    assert np.allclose(first[:, 1], x[:, 1]) and np.allclose(np.delete(first, 1, 1), 100)
    rest = keep("2", "4", source=source).load("test").x[:]
    wanted = np.full((5, 4), 100.0)
    wanted[:, [0, 3]] = source.splits["test"][:, [0, 3]]
    assert np.allclose(rest, wanted, atol=1e-4)
    shares = [keep(str(part), source=source).load("test").facts["variance_explained"] for part in (1, 2, 3, 4)]
    assert np.allclose(shares, np.array([64, 16, 4, 1]) / 85)


def test_what_is_kept_and_what_is_dropped_add_up():
    """On both sides of half of the components, where the smaller part is what is computed."""
    mean = FLAT.mean(0)
    for cut in (10, 50):
        low, high = keep(f"1-{cut}").load("test"), keep(f"{cut + 1}-64").load("test")
        both = (low.x[:] + high.x[:].astype(np.float64)).reshape(-1, 64) - mean
        assert np.allclose(both, TEST.x[:].reshape(-1, 64), atol=1e-6)
        assert low.facts["variance_explained"] + high.facts["variance_explained"] == pytest.approx(1)


def test_projecting_twice_changes_nothing_and_no_pair_moves_apart():
    once = keep("1-12").load("test").x[:].astype(np.float64).reshape(-1, 64)
    twice = keep("1-12", source=keep("1-12")).load("test").x[:].reshape(-1, 64)
    assert np.allclose(once, twice, atol=1e-5)
    before = TEST.x[:].reshape(-1, 64)
    for a, b in ((0, 1), (2, 77), (3, 400)):
        assert np.linalg.norm(once[a] - once[b]) <= np.linalg.norm(before[a] - before[b]) + 1e-5


def test_fitted_on_train_alone():
    rng = np.random.default_rng(1)
    train, test = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    alone = keep("1-3", source=Arrays(train=train, test=test[:1])).load("test").x[:]
    others = keep("1-3", source=Arrays(train=train, test=np.concatenate([test[:1], 1e3 * test]))).load("test").x[:1]
    assert np.allclose(alone, others, atol=1e-5)


def test_labels_shape_and_order_stay_and_the_domain_does_not():
    found = keep("1-3").load("test")
    assert found.shape == (1, 8, 8) and found.x.dtype == found.x[0:2].dtype == np.float32
    assert np.array_equal(found.y, TEST.y) and np.array_equal(found.index, TEST.index)
    assert not found.domain.bounded  # projections leave [0, 1]
    assert found.x[:].min() < 0


def test_ranges_end_where_variances_differ():
    x = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 0.5], [0, 0, -0.5]])
    source = Arrays(train=x, test=x)
    with pytest.raises(DataError, match="components 1 to 2 have the same variance, so which is number 1 is arbitrary"):
        keep("1", source=source).load("test")
    assert np.allclose(keep("1-2", source=source).load("test").x[:], x * [1, 1, 0], atol=1e-6)
    with pytest.raises(DataError, match="have the same variance"):
        keep("1-62").load("test")  # some pixels of digits never vary
    assert np.allclose(keep("1-64").load("test").x[:], TEST.x[:], atol=1e-6)


def test_what_is_chosen_before_it_is_fitted_on_is_part_of_the_dataset():
    plugins = load_plugins()
    before = load_data(plugins.resolve("datasets", "digits | subset:n=100 | pca:1-5"), "test")
    after = load_data(plugins.resolve("datasets", "digits | pca:1-5 | subset:n=100"), "test")
    assert before.canonical == "digits | subset:n=100 | pca:1-5" and before.selection == ""
    assert after.canonical == "digits | pca:1-5" and after.selection == "subset:n=100"
    assert len(before.whole) == 100 and len(after.whole) == 450
    assert before.hash == before.samples.digest() != after.hash
    facts = DatasetInfo.model_validate_json(before.info.model_dump_json()).facts  # as manifests keep them
    assert facts == before.samples.facts and 0 < facts["variance_explained"] < 1
    assert load_data(plugins.resolve("datasets", "digits"), "test").info.facts == {}


def test_what_is_kept_is_told_by_checkpoints(tmp_path):
    trained = train("standard:epochs=1", "digits | subset:n=100 | pca:1-5", tmp_path / "net", device="cpu")
    assert set(trained.metadata["facts"]) == {"variance_explained"}


def test_in_specs():
    assert load_plugins().resolve("datasets", "digits | pca:keep=1-4+9-64").canonical == "digits | pca:1-4+9-64"


def test_conforms():
    check_transform(Pca(("1-5", "20-64")))


@pytest.mark.parametrize(
    "ranges", [(), ("",), ("0-3",), ("a",), ("3-1",), ("1-4", "4-6"), ("5", "1"), ("1-",), ("-3",)]
)
def test_ranges_that_are_none(ranges):
    with pytest.raises(ValueError, match=r"range|ascending"):
        Pca(ranges)


def test_what_is_refused():
    with pytest.raises(DataError, match="there are 64 components, but keep asks for number 65"):
        keep("1-65").load("test")
    with pytest.raises(DataError, match="one sample has no variance"):
        keep("1", source=Arrays(train=np.zeros((1, 3)), test=np.zeros((1, 3)))).load("test")
    with pytest.raises(DataError, match="all training samples are equal"):
        keep("1", source=Arrays(train=np.ones((4, 3)), test=np.ones((1, 3)))).load("test")
    with pytest.raises(DataError, match="another size than train"):
        keep("1", source=Arrays(train=[[0, 0, 0], [1, 0, 0]], test=np.eye(4))).load("test")
    with pytest.raises(DataError, match="20000 coordinates"):
        keep("1", source=Arrays(train=np.zeros((2, 20000)), test=np.zeros((2, 20000)))).load("test")
