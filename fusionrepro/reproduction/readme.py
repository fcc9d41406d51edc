"""README.md from nbs/index.ipynb, the kept runs, the model cards, the kept comparison and fresh pictures: `python -m fusionrepro.reproduction.readme`."""

import json
from pathlib import Path

import pandas as pd

from fusionrepro import settings
from fusionrepro.files import atomic, write_text
from fusionrepro.reproduction.compare import VERDICTS
from fusionrepro.reproduction.ledger import Paper, ledger, paper_values
from fusionrepro.reproduction.recorded import Recorded, commonest_reason, judged, kept_run

_HEADER = "<!-- Written by `make readme` from nbs/index.ipynb, results/ and the model cards. Do not edit. -->\n\n"
_SCENES = ((11, "day"), (3, "dusk"), (7, "night"), (5, "fog"))  # (seed, condition) of the README's picture


def _prose() -> str:
    """The landing notebook as Markdown: prose as it stands, code fenced."""
    cells = json.loads((settings.path("nbs_path") / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ("".join(c["source"]) for c in cells)
    return "\n\n".join(t if c["cell_type"] == "markdown" else f"```python\n{t}\n```" for c, t in zip(cells, texts, strict=True))


def _table(rows: list[dict], columns: list[str]) -> list[str]:
    """Rows as a Markdown table; numbers with three decimals."""
    cell = lambda v: f"{v:.3f}" if isinstance(v, float) else str(v)
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*head, *("| " + " | ".join(cell(row[c]) for c in columns) + " |" for row in rows), ""]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def _results_section() -> str:
    """Of every number that the papers print: what the kept runs say of it, and why not more."""
    papers = [p for p in ledger().values() if not p.own]
    artifacts = [a for p in papers for a in p.artifacts.values()]
    done = sum(a.status == "regenerated" for a in artifacts)
    lines = [_result(p, kept_run(p.slug)) for p in papers]
    return "\n".join(
        [
            "## Results",
            "",
            f"{done} of the {len(artifacts)} tables and figures of the five papers are regenerated; {len(artifacts) - done} are open, each with its reason"
            " (`fusionrepro ledger`). What the kept runs say of every printed number:",
            "",
            *_table(lines, list(lines[0])),
            _kept_runs(papers),
            "",
        ]
    )


def _result(paper: Paper, run: Recorded | None) -> dict[str, str | int]:
    """One paper's row: printed numbers by verdict; without a kept run nothing is said of them."""
    printed = sum(v.number is not None for cells in paper_values(paper.slug).values() for v in cells)
    row = {"paper": paper.title, "kept run": run.profile if run else "none yet", "printed numbers": printed}
    if run is None:
        return row | dict.fromkeys((*VERDICTS, "commonest reason"), "–")
    found = judged(paper, run)
    counts = {v: sum(j.verdict == v for j in found) for v in VERDICTS}
    return row | counts | {"commonest reason": commonest_reason(found)}


def _kept_runs(papers: list[Paper]) -> str:
    """Where and when the kept runs were made, in a sentence."""
    facts = [f"{p.title} on {r.run['device_name']}, commit {r.run['commit'][:10]}" for p in papers if (r := kept_run(p.slug))]
    if not facts:
        return "No run is kept with the package yet; `fusionrepro run` and `fusionrepro report` make these numbers on your machine."
    return f"Kept runs: {'; '.join(facts)}. Every cell with its verdict and reason stands in `results/recorded/`; the report shows it beside your own run."


def _weights_section() -> str:
    """What comes with the package, every number from the model cards."""
    lines = ["## Shipped weights", ""]
    for path in sorted((settings.root() / "fusionrepro" / "weights").glob("*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        if "metrics" not in card:  # published, but not measured yet
            continue
        loss = f" Loss: {card['loss']}." if card.get("loss") else ""
        lines += [f"**{card['title']}** ({_size(card['bytes'])}): {card['data']}; {card['training']}.{loss} {card['comparability']}", ""]
        lines += ["Clean pairs at their own size, correct formulas:", "", *_table(card["metrics"], list(card["metrics"][0]))]
        if not card["under_attack"]:
            continue
        attacked = [c for c in card["under_attack"][0] if c not in ("note", "rounding")]
        lines += [f"Clean and under PGD, in the paper's convention. {card['under_attack'][0]['note']}", "", *_table(card["under_attack"], attacked)]
    return "\n".join(lines)


def _study_section() -> str:
    """Who is best at what, as the kept run of the comparison found it."""
    path = settings.path("results_path") / "comparison.csv"
    ranks, run = pd.read_csv(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    sets = ", ".join(f"{entry['pairs']} of {name.partition('/')[0]}" for name, entry in run["data"].items())
    best = ranks.loc[ranks.groupby("condition", sort=False)["rank"].idxmin()]
    winners = ", ".join(f"{method} ({condition})" for method, condition in zip(best["method"], best["condition"], strict=True))
    plain = " That a plain maximum of both sources can be first says as much about the metrics as about the methods." if "Maximum" in set(best["method"]) else ""
    return (
        "## All methods, all conditions\n\n"
        f"Mean rank of {ranks['method'].nunique()} methods by six metrics over {ranks['n'].max()} pairs ({sets}) under {ranks['condition'].nunique()} conditions; 1 would win everywhere. "
        f"First: {winners}.{plain} A {run['profile']} run of `fusionrepro run comparison`, with published weights of the rivals and the shipped ones of the five papers: "
        f"{' '.join(n for n in run['notes'] if 'took part' not in n)} Intervals stand in `results/comparison.csv`, the facts of the run beside it.\n\n"
        "![Heat map of mean ranks, a row a method, a column a condition](nbs/images/ranks.png)\n"
    )


def text() -> str:
    """The whole README."""
    licence = "## Licence\n\nMIT for the code and the weights trained here. Data sets and other authors' weights keep their own terms.\n"
    return _HEADER + _prose() + "\n\n" + _results_section() + "\n" + _study_section() + "\n" + _weights_section() + "\n" + licence


def picture(path: Path) -> None:
    """Visible, infrared and fused scenes, one column a condition (JPEG, procedural scenes only)."""
    import torch

    from fusionrepro.data.scenes import scene
    from fusionrepro.data.show import contact_sheet
    from fusionrepro.imaging.post import to_picture
    from fusionrepro.training.store import load

    model = load("a2rnet")
    pairs = [scene(seed=s, condition=c) for s, c in _SCENES]
    with torch.no_grad():
        fused = [to_picture(model(p.ir[None], p.vi[None]), model.post)[0] for p in pairs]
    sheet = contact_sheet(pairs, fused)
    with atomic(path) as temporary:
        sheet.savefig(temporary, dpi=88, bbox_inches="tight", pil_kwargs={"quality": 84})


def ranks_picture(path: Path) -> None:
    """The heat map of the kept comparison (PNG)."""
    from fusionrepro.reproduction.study import heat_map

    figure = heat_map(pd.read_csv(settings.path("results_path") / "comparison.csv"))
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=64, metadata={"Software": None})


def main() -> None:
    picture(settings.path("nbs_path") / "images" / "fused.jpg")
    ranks_picture(settings.path("nbs_path") / "images" / "ranks.png")
    print(write_text(settings.root() / "README.md", text()))


if __name__ == "__main__":
    main()
