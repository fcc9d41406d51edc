"""The metrics room: exactness against published values, conventions, bad input."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fusionrepro.bench.metrics import NAMES, bench_metrics, pairs, plain
from fusionrepro.errors import DataError, InputError
from fusionrepro.metrics import DEFAULT_METRICS, METRICS, PRESETS, evaluate
from fusionrepro.metrics import gradient, information, perceptual
from fusionrepro.metrics.evaluate import convention, preset
from fusionrepro.metrics.fidelity import vif_wavelet
from fusionrepro.metrics.score import CONTROLS, compare_methods, holm, method_folders, score, score_methods

ORACLES = os.environ.get("FUSIONREPRO_ORACLES", "")
needs_oracles = pytest.mark.skipif(not ORACLES, reason="FUSIONREPRO_ORACLES is not set")


def noise(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=g) * 255).round() / 255


@pytest.fixture
def triple():
    a, b = noise(2, 1, 48, 56, seed=1), noise(2, 1, 48, 56, seed=2)
    return (a + b) / 2, a, b


def grey(path):
    x = np.asarray(Image.open(path)).astype(float)
    if x.ndim == 3:  # MATLAB's rgb2gray on uint8
        x = np.floor(x[..., :3] @ [0.298936021293775, 0.587043074451121, 0.114020904255103] + 0.5)
    return torch.from_numpy(x / 255)[None, None]


def published(name):
    """(values, [fused, ir, vi] paths) of every published image of a metrics CSV."""
    root = Path(ORACLES)
    manifest = pd.read_csv(root / "manifest.csv", dtype=str)
    values = pd.read_csv(root / "metrics" / name, dtype={"scene": str})
    for (method, scene), group in values.groupby(["method", "scene"]):
        row = manifest[
            (manifest.kind == "fused") & (manifest.method == method) & (manifest.scene == scene)
        ].iloc[0]
        yield group.set_index("metric").value, [root / row[c] for c in ("path", "ir", "vi")]


@needs_oracles
def test_tang2022_gives_the_published_values():
    # Relative; Qabf on 0..1 depends on rounding noise where a gradient vanishes.
    tolerance = dict.fromkeys(
        ["EN", "SD", "SF", "AG", "MI", "MSE", "PSNR", "CC", "SCD", "VIF"], 1e-9
    ) | {"Qabf": 1e-5}
    count = 0
    for values, paths in published("tang_tno.csv"):
        ours = evaluate(*map(grey, paths), metrics=list(tolerance), preset="tang2022").iloc[0]
        for name, limit in tolerance.items():
            assert ours[name] == pytest.approx(values[name], rel=limit), (paths[0], name)
            count += 1
    assert count == 297


VIFB = {
    "Avg_gradient": "AG",
    "Cross_entropy": "CE",
    "Edge_intensity": "EI",
    "Entropy": "EN",
    "Mutinf": "MI",
    "Psnr": "PSNR",
    "Qabf": "Qabf",
    "Qcb": "Qcb",
    "Qcv": "Qcv",
    "Rmse": "RMSE",
    "Spatial_frequency": "SF",
    "Ssim": "SSIM",
    "Variance": "SD",
}


def colour(path):
    x = torch.from_numpy(np.asarray(Image.open(path)).astype(float) / 255)
    return x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]


@needs_oracles
def test_vifb_gives_the_published_digits():
    count = 0
    for values, paths in published("vifb.csv"):
        if paths[1].stem not in (
            "snow",
            "walking",
        ):  # the other scenes take as long again and agree as well
            continue
        ours = evaluate(*map(colour, paths), metrics=list(VIFB.values()), preset="vifb").iloc[0]
        for theirs, name in VIFB.items():  # five digits are published
            assert ours[name] == pytest.approx(values[theirs], rel=5e-5), (paths[0], name)
            count += 1
    assert count == 156


def test_batch_chunk_and_list_give_the_same(triple):
    whole = evaluate(*triple, chunk=2)
    assert tuple(whole.columns) == DEFAULT_METRICS
    pd.testing.assert_frame_equal(whole, evaluate(*triple, chunk=1), rtol=1e-12)
    pd.testing.assert_frame_equal(whole, evaluate(*(list(x) for x in triple)), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, a, b: (f * float("nan"), a, b), "fused holds NaN"),
        (lambda f, a, b: (f, a * 255, b), "divide it by 255"),
        (lambda f, a, b: (f - 0.5, a, b), "to_picture"),
        (lambda f, a, b: (f, a, (b * 255).byte()), "floating-point"),
        (lambda f, a, b: (f, a[..., :-1], b), "differ in shape"),
        (lambda f, a, b: (f, a[:1], b), "numbers of images differ"),
        (
            lambda f, a, b: (f[..., :20, :], a[..., :20, :], b[..., :20, :]),
            "VIF needs images of at least 41",
        ),
        (lambda f, a, b: (f[..., :1], a[..., :1], b[..., :1]), "EN, SD, .*Qabf need images of at least 41"),
        (lambda f, a, b: (f[:0], a[:0], b[:0]), "no image"),
    ],
)
def test_bad_input_is_one_sentence(triple, change, message):
    with pytest.raises(InputError, match=message):
        evaluate(*change(*triple))


def test_unknown_names(triple):
    with pytest.raises(InputError, match="did you mean 'SSIM'"):
        evaluate(*triple, metrics=["SSIMM"])
    with pytest.raises(InputError, match="did you mean 'tang202"):
        evaluate(*triple, preset="tang2o22")


def test_no_value_is_nan_on_degenerate_images(triple):
    flat = torch.full_like(triple[0], 0.4)
    for images in [
        (flat, flat, flat),
        (flat, *triple[1:]),
        (triple[1], triple[1], triple[2]),
        (triple[0], flat, flat),
    ]:
        assert evaluate(*images).notna().all(axis=None)


def degenerate():
    a, b = noise(1, 1, 161, 166, seed=1), noise(1, 1, 161, 166, seed=2)
    flat = torch.full_like(a, 0.4)
    triples = [
        ((a + b) / 2, a, b),
        (a, a, b),
        (flat, a, b),
        ((a + b) / 2, flat, flat),
        (flat, flat, flat),
    ]
    return [torch.cat(x) for x in zip(*triples, strict=True)]


def test_every_metric_is_a_number_even_of_constant_images():
    table = evaluate(*degenerate(), metrics=list(METRICS))
    assert table.notna().all(axis=None), table.columns[table.isna().any()]


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if n == p.name and p.uses])
def test_every_convention_of_a_preset_is_a_number(name):
    own = [
        m
        for m, use in PRESETS[name].uses.items()
        if (use.options or use.metric) and not m.startswith("FMI")
    ]
    table = evaluate(*degenerate(), metrics=own, preset=name)
    assert table.notna().all(axis=None), table.columns[table.isna().any()]


# ---------------------------------------------------------------- score


@pytest.fixture
def folders(tmp_path):
    for i in range(5):
        a, b = noise(48, 56, seed=10 + i), noise(48, 56, seed=20 + i)
        for name, x in dict(ir=a, vi=b, mean=(a + b) / 2, max=torch.maximum(a, b)).items():
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray((x * 255).round().byte().numpy()).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_score_of_folders(folders):
    result = score(
        folders / "mean",
        folders / "ir",
        folders / "vi",
        "a2rnet",
        ["EN", "SD", "MSE"],
        progress=False,
    )
    assert list(result.frame.index) == list("01234")
    back = pd.read_csv(result.to_csv(folders / "table.csv"), dtype={"id": str})
    assert list(back.columns) == ["id", "EN", "SD", "MSE", "preset", "conventions"]
    assert (back["SD"] == result.frame["SD"].to_numpy()).all() and set(back.preset) == {"tang2022"}
    assert "saturating" in back.conventions[0]
    summary = result.summary()
    assert list(summary.better) == ["↑", "↑", "↓"]
    assert (summary.low <= summary["mean"]).all() and (summary["mean"] <= summary.high).all()
    result.box_plot(folders / "boxes.png")
    assert Image.open(folders / "boxes.png").size[0] > 300


def test_score_of_files_equals_evaluate(folders):
    paths = [folders / kind / "3.png" for kind in ("max", "ir", "vi")]
    ours = score(*paths, metrics=["Qabf", "MI"]).frame
    pd.testing.assert_frame_equal(
        ours, evaluate(*map(grey, paths), metrics=["Qabf", "MI"], ids=["3"]), rtol=1e-12
    )


def test_comparison_of_methods(folders):
    scores = {
        m: score(folders / m, folders / "ir", folders / "vi", metrics=["EN", "MSE"], progress=False)
        for m in ("mean", "max")
    }
    table = compare_methods(scores).set_index("metric")
    assert table.better["MSE"] == "mean" and table.p["MSE"] == pytest.approx(2 / 2**5)
    assert (compare_methods({"a": scores["max"], "b": scores["max"]}).p == 1).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_a_metric_named_twice_is_measured_once(triple):
    assert list(evaluate(*triple, metrics=["SD", "EN", "sd"]).columns) == ["SD", "EN"]


def test_score_names_the_file_and_leaves_nothing(folders):
    with pytest.raises(InputError, match="did you mean 'cddfuse'"):
        score(folders / "none", folders / "ir", folders / "vi", "cddfus")
    with pytest.raises(InputError, match=r"unknown suffix '\.xyz'; use \.png"):
        score(*(folders / kind / "3.png" for kind in ("max", "ir", "vi")), metrics=["EN"]).box_plot(folders / "box.xyz")
    assert not list(folders.glob("*box*"))
    Image.new("L", (9, 9)).save(folders / "mean" / "2.png")
    with pytest.raises(InputError, match=r"mean/2\.png: .*differ in shape"):
        score(folders / "mean", folders / "ir", folders / "vi", metrics=["EN"], progress=False)


def test_score_says_what_is_missing(folders):
    (folders / "ir" / "2.png").unlink()
    with pytest.raises(DataError, match="no partner for 2"):
        score(folders / "mean", folders / "ir", folders / "vi")
    with pytest.raises(InputError, match="not a mixture"):
        score(folders / "mean" / "1.png", folders / "ir", folders / "vi")
    with pytest.raises(InputError, match="does not exist"):
        score(folders / "none", folders / "ir", folders / "vi")


def test_score_of_methods_keeps_to_the_common_pictures(folders):
    (folders / "max" / "2.png").unlink()
    methods = {m: folders / m for m in ("mean", "max")}
    found = score_methods(methods, folders / "ir", folders / "vi", metrics=["EN", "PSNR"], controls=True, progress=False)
    assert found.left_out == ("max has no 2; 4 of 5 pictures, which all methods have, are scored.",)
    table = found.table()
    assert list(table.index) == ["mean", "max", *CONTROLS] and list(table.columns) == ["EN ↑", "PSNR ↑"]
    alone = score(folders / "mean", folders / "ir", folders / "vi", metrics=["EN", "PSNR"], progress=False).frame
    assert table.loc["mean", "PSNR ↑"] == pytest.approx(alone.PSNR.drop("2").mean())
    assert np.isfinite(table).all(axis=None) and table["PSNR ↑"].idxmax() == "mean"
    back = pd.read_csv(found.to_csv(folders / "all.csv"), dtype={"id": str})
    assert len(back) == 16 and list(back.columns[:4]) == ["method", "id", "EN", "PSNR"]
    for path in (folders / "max").iterdir():
        path.rename(path.with_stem("x" + path.stem))
    with pytest.raises(DataError, match="no partner for x0"):
        score_methods(methods, folders / "ir", folders / "vi", progress=False)


def test_folders_of_methods(folders):
    assert list(method_folders([folders / "mean", folders / "max"])) == ["mean", "max"]
    (folders / "empty").mkdir()
    assert set(method_folders([folders])) == {"ir", "vi", "mean", "max"}
    with pytest.raises(InputError, match="would both be the method 'max'"):
        method_folders([folders, folders / "max"])
    with pytest.raises(InputError, match="is no folder"):
        method_folders([folders / "none"])


# ---------------------------------------------------------------- evidence, toolboxes, compiled loops


def test_a_guess_is_said_to_be_one(triple):
    guesses = {m for m in preset("derun").metrics if convention(m, "derun")["evidence"] == "inferred"}
    assert guesses == {"FMI", "Qp", "UIQI", "PSNR", "SSIM"}
    assert [m for m in preset("msfam").metrics if convention(m, "msfam")["evidence"] == "inferred"] == ["SSIM", "VIF"]
    assert convention("Qcv", "cddfuse")["evidence"] == "inferred"  # not in that toolbox at all
    assert {convention(m)["evidence"] for m in METRICS} == {"published"}


def test_a_preset_scores_what_its_toolbox_prints(folders):
    names = score(folders / "mean", folders / "ir", folders / "vi", "cddfuse", progress=False).frame.columns
    assert "MSE" in names and "MS-SSIM" not in names
    own = preset("liu2012").metrics
    assert {"QSF", "NMI", "NCIE", "Qc", "QG"} <= set(own) and "Qabf" not in own  # Qabf is QG there


def test_psnr_of_a_copy_is_finite_but_for_the_average_of_decibels(triple):
    _, a, b = triple
    values = {p: evaluate(a, a, b, metrics=["PSNR"], preset=p).PSNR for p in ("default", "derun")}
    assert np.isfinite(values["default"]).all() and np.isinf(values["derun"]).all()


def test_qsf_as_written(triple):
    f, a, b = (x[0, 0].numpy() for x in triple)
    def frequency(steps):
        return sum(w * (s**2).sum() for w, s in zip((1, 1, 0.5**0.5, 0.5**0.5), steps, strict=True)) ** 0.5
    def steps(x):
        return np.diff(x), np.diff(x, axis=0), x[1:, 1:] - x[:-1, :-1], x[1:, :-1] - x[:-1, 1:]
    reference = frequency([np.maximum(abs(p), abs(q)) for p, q in zip(steps(a), steps(b), strict=True)])
    ours = gradient.qsf(*triple)[0].item()
    assert ours == pytest.approx((frequency(steps(f)) - reference) / reference, rel=1e-4)


@pytest.mark.parametrize("size", [(31, 44), (48, 53)])
@pytest.mark.parametrize("feature", list(information.FEATURES))
def test_fmi_of_the_loop_is_that_of_the_definition(feature, size):
    f, a, b = ((x.double() * 255).round() for x in pairs(2, (64, 64)))
    flat = torch.full_like(f[:1], 51.0)
    f, a, b = (torch.cat(x)[..., : size[0], : size[1]] for x in ((f, f[:1]), (a, flat), (b, f[:1])))
    maps = tuple(information._feature(x, feature) for x in (f, a, b))
    wanted = information._window_means_torch(*maps)
    found = information.fmi(*(x / 255 for x in (f, a, b)), feature=feature)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-9)


@pytest.mark.parametrize("size", [(47, 52), (64, 33)])
def test_phase_congruency_of_the_loop_is_that_of_the_definition(size, monkeypatch):
    images = [x[..., : size[0], : size[1]] for x in pairs(2, (64, 64))]
    found = perceptual.qp(*images)
    def in_double(x):
        return torch.stack([y[0] for y in perceptual._sums_on_device(x[None, None])])
    monkeypatch.setattr(perceptual, "_sums_on_cpu", in_double)
    assert found.tolist() == pytest.approx(perceptual.qp(*images).tolist(), rel=1e-5)


def test_wavelet_vif_is_the_same_with_and_without_gradients():
    f, a, b = (x.double()[..., :131, :140] for x in pairs(1, (144, 144)))
    assert vif_wavelet(f, a, b).item() == pytest.approx(vif_wavelet(f.requires_grad_(), a, b).item(), rel=1e-9)


# ---------------------------------------------------------------- speed and gradients


def test_plain_version_gives_the_same():
    f, a, b = pairs(1, (96, 112))
    ours, theirs = (
        evaluate(f, a, b, metrics=NAMES).iloc[0],
        plain(*((x[0, 0].double() * 255).round().numpy() for x in (f, a, b))),
    )
    assert ours.to_dict() == pytest.approx(theirs, rel=1e-10)


def test_bench_has_both_versions():
    table = bench_metrics(1, (64, 64), repeats=1)
    assert list(table.index) == ["fusionrepro", "plain"] and (table.cpu_s > 0).all()
    assert table.attrs["difference"] < 1e-10


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.differentiable])
def test_gradient_is_the_slope(name):
    g = torch.Generator().manual_seed(3)
    size = 161 if METRICS[name].minimum > 41 else 44
    base = torch.nn.functional.interpolate(
        torch.rand(1, 1, size // 4, size // 4, generator=g).double(), (size, size), mode="bicubic"
    )
    a, b = ((base.roll(s, -1).clamp(0.05, 0.95) * 255).round() / 255 for s in (0, 5))
    # Between the grey levels: 8-bit pictures are snapped to whole ones, and equal neighbours have no orientation.
    f = (
        (0.5 * (a + b) * 250).floor() + 0.2 + 0.6 * torch.rand(a.shape, generator=g).double()
    ) / 255
    f.requires_grad_(True)
    METRICS[name](f, a, b).sum().backward()
    direction = torch.randn(f.shape, generator=g).double()
    step = 1e-7
    with torch.no_grad():
        up, down = (METRICS[name](f + s * step * direction, a, b).item() for s in (1, -1))
    slope = (f.grad * direction).sum().item()
    assert slope == pytest.approx((up - down) / (2 * step), rel=0.02, abs=1e-4 * abs(up) + 1e-6)


# ---------------------------------------------------------------- real pictures


@needs_oracles
def test_a2rnet_triples_have_the_magnitudes_of_its_table():
    # The notes' mean over all 11 triples: EN 6.60, SD 8.89, PSNR 63.6, CC 0.58, SCD 1.69; four of them are here.
    root = Path(ORACLES)
    manifest = pd.read_csv(root / "manifest.csv", dtype=str)
    rows = [
        evaluate(
            *(grey(root / row[c]) for c in ("path", "ir", "vi")),
            metrics=["EN", "SD", "PSNR", "CC", "SCD"],
            preset="a2rnet",
        )
        for _, row in manifest[manifest.kind == "pseudo_label"].iterrows()
    ]
    found = pd.concat(rows).mean()
    assert len(rows) == 4
    for name, (low, high) in dict(
        EN=(6, 7.2), SD=(7.5, 10), PSNR=(61, 66), CC=(0.4, 0.8), SCD=(1.4, 1.95)
    ).items():
        assert low < found[name] < high, (name, found[name])


@pytest.mark.skipif(not os.environ.get("FUSIONREPRO_DATA"), reason="FUSIONREPRO_DATA is not set")
def test_conventions_on_real_pairs():
    root = Path(os.environ["FUSIONREPRO_DATA"]) / "tno"
    table = pd.read_csv(root / "manifest.csv", dtype=str).query("split == 'test'").head(3)
    for _, row in table.iterrows():
        a, b = grey(root / row.ir), grey(root / row.vi)
        f = torch.maximum(a, b)
        tang, rfn, ours, cdd = (
            evaluate(f, a, b, metrics=["EN", "SD", "MI", "PSNR", "AG"], preset=p).iloc[0]
            for p in ("a2rnet", "rfnnest", "default", "cddfuse")
        )
        assert rfn.MI == pytest.approx(2 * ours.EN, rel=1e-12)
        assert tang.SD < 16 < ours.SD
        assert tang.PSNR - cdd.PSNR == pytest.approx(
            48.1308 + 20 * np.log10(255 / round(f.max().item() * 255)), abs=1e-3
        )
        assert cdd.MI == pytest.approx(ours.MI * np.log(2), rel=1e-9)
