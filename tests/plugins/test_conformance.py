"""Every built-in plugin passes the conformance kit, and none is forgotten."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robench.graph import from_torch, save
from robench.registry import KINDS, load_plugins
from robench.testing import check_plugin

# Specs by kind: defaults, and what makes another program of the same plugin. Files are made below.
SPECS = {
    "datasets": [
        "digits",
        "npz:{data}",
        "mnist:{mnist}",
        "fashion-mnist:{mnist}",
        "cifar10:{cifar}",
        "cifar100:{cifar}",
        "imagefolder:{images},crop=5,resize=6",
        "vnnlib:{vnnlib}",
        "hypercube:8,test=30",
        "gaussian-mixture:d=5,n=30,test=30",
        "spheres:d=5,n=30,test=30",
        "lattice:d=4",
        "gaussian-points:d=5",
        "half-space:d=3,n=30,test=30",
        "linear-generator:dim=6,latent=3,n=30,test=30",
    ],
    "transforms": [
        "subset:n=10",
        "subset:n=7,seed=3",
        "classes:{classes}",
        "imbalance:{classes},keep=0.5",
        "noise-labels:0.3",
        "pca:1-5+20-64",
    ],
    "models": [
        "checkpoint:{checkpoint}",
        "onnx:{onnx}",
        "onnxruntime:{double}",
        "digits-standard",
        "digits-gaussian",
        "digits-pgd-linf",
        "digits-pgd-l2",
        "digits-ibp",
        "digits-aol",
    ],
    "attacks": [
        "apgd",
        "apgd:steps=20,loss=dlr,targets=3",
        # The default, 2,700 steps for each of eight runs, takes minutes here.
        "cw:rate=0.05,search=4,steps=60",
        "cw:rate=0.05,search=3,starts=0,steps=80,targets=0,variable=tanh",
        "ddn",
        "ddn:starts=0,targets=0",
        "deepfool",
        "fab:restarts=2,steps=20",
        "fab:restarts=1,steps=20,targets=3",
        "fmn",
        "fmn:starts=0,targets=0",
        "fgsm",
        "pgd",
        "probe",
        # Its default of 17 runs takes minutes here.
        "race:heat=5,keep=1,restarts=2,steps=10,targets=2",
        "pgd:steps=10,targets=0,restarts=3,schedule=fixed",
        "pgd:steps=20,targets=2,loss=margin,targeted_loss=dlr",
        "pgd:steps=20,targets=0,loss=dlr,momentum=0.75,early_exit=false",
        # Its default of 5000 queries takes minutes here.
        "square:queries=400",
        "hopskipjump:queries=1500",
        "smoothadv:draws=4,steps=8",
        "smoothadv:draws=3,loss=ce,restarts=2,schedule=cosine,steps=8,trial=20",
    ],
    "wrappers": ["noise", "noise:sigma=0.5", "smooth:sigma=0.25", "smooth:noise=uniform,sigma=0.5"],
    "noises": ["gaussian", "gaussian:2", "uniform", "uniform:0.1"],
    "attack_modifiers": ["eot", "eot:draws=3", "fast", "fast:precision=bf16", "fast:precision=tf32"],
    "certifiers": [
        "ibp",
        "crown-ibp",
        "crown",
        "alpha-crown",
        "alpha-crown:inside=false,rate=0.1,steps=5",
        "bab",
        "crown-ibp:radius=true",
        "crown:radius=true,tolerance=0.1",
        "linear",
        "lipschitz",
        "fast-lip",
        "fast-lip:bounds=ibp,minutes=0,secants=false",
        "lp",
        "lp:bounds=ibp",
        "milp",
        "milp:bounds=alpha,leaves=0,threads=2",
        "smoothing",
        "smoothing:alpha=0.05,n=2000,sides=2",
        "smoothing:n=10000,n0=500,tolerance=0.02",
        "smoothing:mode=decide",
        "smoothing:alpha=0.05,mode=decide,n=2000",
    ],
    "bounds": ["transport"],
    "recipes": [
        "standard:epochs=5",
        "pgd-at:epochs=3",
        "fgsm-at:epochs=5",
        "gradalign:epochs=5",
        "trades:epochs=5,steps=3",
        "crown-ibp:epochs=6",
        "ibp:epochs=6",
        "gaussian:epochs=5",
        "aol:epochs=10",
        "aol:arch=convnet,epochs=10,loss=self-normalizing,t=0.1",
        "bcop:epochs=10",
        "cayley:epochs=10",
        "cpl:epochs=10",
        "cpl:arch=convnet,channels=4,epochs=10,lr=0.1",
        "soc:channels=4,epochs=3",
        "spectral-norm:epochs=10",
        "smoothadv:epochs=5,warmup=2",
    ],
    "importers": ["cohen", "vnncomp"],
}
# Adapters whose libraries are not installed here: tests/plugins/peers holds them to the kit.
# autoattack and portfolio take minutes: test_autoattack.py and test_portfolio.py check them cut short. transfer needs a
# source of the kit's own shapes.
# svhn believes the published bytes alone: test_svhn.py makes other ones known to it.
ELSEWHERE = {
    ("datasets", "svhn"),
    ("attacks", "autoattack"),
    ("attacks", "portfolio"),
    ("attacks", "transfer"),
    ("attacks", "advlib"),
    ("attacks", "foolbox"),
    ("attacks", "torchattacks"),
    ("recipes", "orthogonium"),
    ("recipes", "torchlip"),
}
# What a plugin need not do, and why.
SKIP = {
    "linear": ["sound on small networks"],
    # Minimum-norm attacks.
    **{name: ["budget"] for name in ("cw", "ddn", "deepfool", "fab", "fmn", "hopskipjump")},
    "onnxruntime": ["gradient"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    draw = np.random.default_rng(0)
    x = draw.random((40, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "data.npz", x=x, y=draw.integers(0, 3, 40))
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)
    ).eval()
    save(from_torch(net, (1, 8, 8)), folder / "net", {})
    _export(net, folder / "net.onnx")
    _export(net.double(), folder / "double.onnx")  # the kit asks for equal answers to 1e-9
    (folder / "mnist").mkdir()
    for name, count in (("train", 40), ("t10k", 20)):
        images, labels = draw.integers(0, 256, (count, 28, 28), np.uint8), draw.integers(0, 10, count, np.uint8)
        (folder / "mnist" / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, count, 28, 28) + images.tobytes()
        )
        (folder / "mnist" / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())
    (folder / "cifar").mkdir()
    for split in ("train", "test"):
        pictures = draw.integers(0, 256, (20, 32, 32, 3), np.uint8)
        np.savez(folder / "cifar" / f"{split}.npz", x=pictures, y=draw.integers(0, 10, 20))
        for label in range(3):
            (folder / "images" / split / str(label)).mkdir(parents=True)
            Image.fromarray(pictures[label]).save(folder / "images" / split / str(label) / "0.png")
    lines = [
        "idx\tlabel\tpredict\tradius\tcorrect\ttime",
        "0\t3\t3\t0.378\t1\t15.4",
        "20\t7\t-1\t0.0\t0\t0:00:15",
        "40\t4\t1\t0.34\t0\t9",
    ]
    (folder / "sigma_0.25").write_text("\n".join(lines) + "\n")
    (folder / "tool").mkdir()
    answers = [f"toy,net.onnx,prop_{i}_0.1.vnnlib,0.1,{word},1.5" for i, word in enumerate(("unsat", "sat", "timeout"))]
    (folder / "tool" / "toy.csv").write_text("\n".join(answers) + "\n")
    words = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    words += [f"(assert ({sign} X_{i} 0.{i + 1}{end}))" for i in range(2) for sign, end in ((">=", 1), ("<=", 2))]
    (folder / "prop.vnnlib").write_text("\n".join([*words, "(assert (<= Y_0 Y_1))", ""]))
    return {
        "vnnlib": str(folder / "prop.vnnlib"),
        "data": str(folder / "data.npz"),
        "checkpoint": str(folder / "net"),
        "mnist": str(folder / "mnist"),
        "cifar": str(folder / "cifar"),
        "images": str(folder / "images"),
        "onnx": str(folder / "net.onnx"),
        "double": str(folder / "double.onnx"),
        "cohen": str(folder / "sigma_0.25"),
        "vnncomp": str(folder / "tool"),
        "classes": "0+2",
    }


def _export(net: torch.nn.Module, file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    double = next(net.parameters()).dtype == torch.float64
    helper, shape = onnx.helper, onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "1.weight", "1.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "3.weight", "3.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", shape, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", shape, ["batch", 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, specs in SPECS.items() for spec in specs])
def test_built_in_plugins_conform(kind: str, spec: str, files: dict[str, str]) -> None:
    path = Path(files[spec.partition(":")[0]]) if kind == "importers" else None
    findings = check_plugin(kind, spec.format(**files), path=path)
    assert [str(finding) for finding in findings if not finding.ok] == []
    skipped = {finding.check for finding in findings if finding.outcome == "skipped"} - {"device"}
    assert skipped <= {*SKIP.get(spec.partition(":")[0], []), "selection"}


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("kind", "spec"), [(k, s) for k in ("attacks", "certifiers", "models", "noises") for s in SPECS[k]]
)
def test_built_in_plugins_run_on_a_gpu(kind: str, spec: str, files: dict[str, str]) -> None:
    (finding,) = [one for one in check_plugin(kind, spec.format(**files), only=["device"]) if one.check == "device"]
    assert finding.outcome == "passed", str(finding)


def test_every_built_in_plugin_is_checked() -> None:
    plugins = load_plugins()
    registered = {
        (kind, entry.name) for kind in KINDS for entry in plugins.entries(kind) if entry.distribution == "robench"
    }
    assert registered - ELSEWHERE == {(kind, spec.partition(":")[0]) for kind, specs in SPECS.items() for spec in specs}
