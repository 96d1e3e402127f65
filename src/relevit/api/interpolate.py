"""`relevit interpolate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import command_line, public
from relevit.errors import UserError
from relevit.folders import OwnedFolder

if TYPE_CHECKING:
    from relevit.evaluation.interpolation import Curve
    from relevit.report.table import Table

_BUILTIN = ("builtin", "builtin/validation")  # for which --data and --shifted mean different sets


@public
def interpolate(
    original: types.Model,
    tuned: Annotated[types.Model, types.Shown(str, "FINETUNED")],
    *,
    data: types.DataSets,
    shifted: types.DataSets,
    out: types.Folder,
    alphas: Sequence[types.Share] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    budget: types.Positive = 1.0,
    protocol: types.Protocol = "standard",
    class_map: types.ClassMap | None = None,
    batch_size: types.Count = 64,
    workers: types.Index = 0,
    device: types.Device = None,
    precision: types.Precision = "float32",
    progress: bool = True,
) -> Curve:
    """Mix the weights of a model and of one fine-tuned from it (WiSE-FT), and keep the mixture that a budget allows.

    Models with the weights (1 - alpha) ORIGINAL + alpha FINETUNED are measured in distribution and on shifted sets, in one pass over the
    images. The one with the highest mean R@1 on the shifted sets, among those that lose no more than the budget in distribution, is
    saved in OUT/best; the curve is in OUT/report.html, curve.png, curve.csv and interpolation.json. The choice is made on the images given
    here: give validation images, and measure OUT/best on others. Stopped, the same command goes on.

    Args:
        original: the model before, as for `relevit evaluate`.
        tuned: the model after fine-tuning, such as a run's folder.
        data: images in distribution, as for `relevit evaluate` (in Python also data sets); or builtin/validation, pictures of other objects than those of builtin.
        shifted: images that are shifted, likewise; builtin/validation stands for all of its shifted sets.
        out: the folder for the results.
        alphas: which mixtures, 0 for the original to 1 for the fine-tuned; 0 is always among them.
        budget: points of R@1 in distribution (mean over --data) that may be lost against the original.
        protocol: standard, or paper (mean and std 0.5, short side 256, crop 224), as for `relevit evaluate`.

    Returns:
        The curve, and on it the mixture that was chosen.
    """
    given = dict(locals())
    from relevit.evaluation.interpolation import check_apart, check_line, interpolation_curve
    from relevit.evaluation.interpolation_page import render_interpolation
    from relevit.models.interpolation import check_mixable
    from relevit.models.interpolation import interpolate as mix
    from relevit.models.loading import data_config, load
    from relevit.models.saving import check_saves, save_checkpoint
    from relevit.processes import pick_device
    from relevit.versions import versions

    names = {"original": str(original), "tuned": str(tuned)}
    settings: dict[str, Any] = {
        **names,
        "data": types.listed(types.told(data)),
        "shifted": types.listed(types.told(shifted)),
        "alphas": types.listed(alphas),
    }
    settings |= {"budget": budget, "protocol": protocol, "class_map": class_map}
    owned = OwnedFolder(out, "relevit interpolate", settings, result="interpolation.json")
    check_line(alphas, budget)
    before, view = load(original, protocol=protocol)
    after, _ = load(tuned, protocol=protocol)
    check_mixable(before, after)
    config = data_config(before, protocol)
    _check_views(config, data_config(after, protocol))
    check_saves(before)  # whether it can be saved is known before long work
    near, far = _sets(data, protocol, shifted=False), _sets(shifted, protocol, shifted=True)
    check_apart(near, far)
    with owned:
        folder = owned.path
        curve = interpolation_curve(
            before,
            after,
            view,
            near,
            far,
            alphas=alphas,
            budget=budget,
            class_map=class_map,
            protocol=protocol,
            out=folder / "evaluation",
            batch_size=batch_size,
            workers=workers,
            device=pick_device(device),
            precision=precision,
        )
        kept = {"interpolation": {**names, "alpha": curve.best.alpha, "budget": budget}}
        save_checkpoint(folder / "best", mix(before, after, curve.best.alpha), extra=kept, data_config=config)
        setup = {
            "original": str(original),
            "fine-tuned": str(tuned),
            "protocol": protocol,
            "command": command_line(interpolate, given),
            "versions": ", ".join(f"{name} {value}" for name, value in versions().items()),
        }
        notes = [
            f"Measured on {', '.join(f'{name} ({len(images):,} pictures)' for name, images in (near | far).items())}.",
            "The mixture was chosen on these images: its figures here are better than they would be on others. Measure it on others.",
            "Weights are mixed one by one: (1 - alpha) original + alpha fine-tuned (Wortsman et al. 2022).",
        ]
        (folder / "report.html").unlink(missing_ok=True)  # of this command, stopped before it was done
        render_interpolation(folder, curve.to_dict(), _summary(curve, budget), setup, notes)
        curve.save(
            folder,
            {
                **names,
                "data": types.told(data),
                "shifted": types.told(shifted),
                "protocol": protocol,
                "versions": versions(),
            },
        )
    return curve


def show(curve: Curve, given: Mapping[str, Any]) -> None:
    """The curve as a table, what was chosen, and where it lies."""
    folder = Path(given["out"])
    terminal.show(_table(curve), *_summary(curve, given["budget"]))
    terminal.show(f"the mixture: {folder / 'best'}; the curve: {folder / 'report.html'}")


def _summary(curve: Curve, budget: float) -> list[str]:
    best, start = curve.best, curve.points[0]
    return [
        f"The mixture at {best.alpha:g} has {best.shifted_mean:.1f} % on the shifted sets, where the original has "
        f"{start.shifted_mean:.1f} %, and {best.in_distribution_mean:.1f} % in distribution, where it has "
        f"{start.in_distribution_mean:.1f} %.",
        f"Of the mixtures that lose no more than {budget:g} points in distribution it is the best on the shifted sets; it is "
        "saved as best.",
    ]


def _check_views(one: dict[str, Any], other: dict[str, Any]) -> None:
    differing = [f"{key} {one[key]} and {other[key]}" for key in one if one[key] != other.get(key)]
    if differing:
        raise UserError(
            f"the models take differently prepared images ({'; '.join(differing)}): no one preparation fits both; "
            "--protocol paper prepares them alike"
        )


def _sets(given: Any, protocol: str, *, shifted: bool) -> dict[str, Any]:
    """The benchmarks by name, opened; of all sets of the built-in benchmark those that are meant."""
    from relevit.data.open import sets

    opened: dict[str, Any] = {}
    for spec in types.listed(given):
        found = dict(sets(spec, protocol=protocol))
        if types.told(spec) in _BUILTIN:
            home, *others = found
            found = {name: found[name] for name in (others if shifted else [home])}
        twice = sorted(found.keys() & opened.keys())
        if twice:
            raise UserError(f"there are two sets called {twice[0]}: give one of them")
        opened |= {name: opener() for name, opener in found.items()}
    return opened


def _table(curve: Curve) -> Table:
    from relevit.report.table import Table

    rows = []
    for point in curve.points:
        said = "chosen" if point is curve.best else "" if curve.within(point) else "beyond the budget"
        rows.append((f"{point.alpha:g}", f"{point.in_distribution_mean:.1f}", f"{point.shifted_mean:.1f}", said))
    return Table("R@1 in percent, means over sets", ("alpha", "in distribution", "shifted", ""), rows, left=(3,))
