"""A draft from a folder of a trained nnU-Net (version 2): ``plans.json`` and ``dataset.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.drafts.base import Draft, classes, image, modalities, read_json, slug, text, version
from service.manifests import defect, invalid

PREFERRED: Final = ("3d_fullres", "2d", "3d_lowres")
NAMES: Final = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage")
CHECKPOINT: Final = "checkpoint_final.pth"
OVERLAP: Final = 0.5
"""Of windows, where its predictor is not told otherwise."""

SPLINES: Final = (
    "nnU-Net takes voxels as its training files stored them and resamples by cubic splines; say "
    "the axes by an 'orient' step, and look at how far linear resampling lies from it."
)
PLANES: Final = (
    "The network was trained on pixels {spacing} mm apart, and nothing here brings an image to a"
    " spacing: 'resample' is of volumes, and 'resize' gives a number of pixels, however far apart."
    " Anything in an image of another spacing is larger or smaller than the network knows it, so"
    " that outlines may be wrong; no image is refused for it. Send images of that spacing alone, or"
    " give the network of a volume. Of a slice nnU-Net crops and normalizes the whole volume, here"
    " it is the slice alone."
)
MIRRORS: Final = (
    "nnU-Net's predictor also mirrors the image and takes the mean, unless told not to; this is "
    "not done here: compare with --disable_tta."
)
COLORS: Final = frozenset({"r", "g", "b", "red", "green", "blue"})
"""Names of channels that are of one image."""

PLAIN: Final = "PlainConvUNet"
PARTS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "norm_op": ("InstanceNorm", {"eps": 1e-5, "affine": True, "track_running_stats": False}),
    "nonlin": ("LeakyReLU", {"negative_slope": 0.01}),
}
"""What of its arguments is fixed in `plain_conv_unet`: their class and its settings."""


def read_nnunet(folder: Path) -> Draft:
    """Return a draft from nnU-Net's folder of results.

    Raises
    ------
    InvalidPackage
        A document is missing, or the plans have no configuration.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    name, plan = _configuration(folder, plans)
    title = text(dataset, "name") or text(plans, "dataset_name") or folder.resolve().name
    draft = Draft(
        {
            "id": slug(title),
            **version(dataset.get("release")),
            "title": title,
            "task": "segmentation",
            "runtime": "torch",
        }
    )
    rights = text(dataset, "licence", "license")
    draft.notes["/license"] = f"Give an SPDX expression; dataset.json says of the data: {rights!r}."
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    _network(plan, channels, dataset, draft)
    _input(plan, plans, channels, draft)
    _labels(dataset, draft)
    _weights(folder, draft)
    draft.notes["/inputs/0"] = (
        f"The plans are those of '{name}': patches of {plan.get('patch_size')!r}, spacing "
        f"{plan.get('spacing')!r} mm in nnU-Net's order of axes "
        f"({plans.get('transpose_forward')!r} of slices, rows, columns)."
    )
    return draft


def _configuration(folder: Path, plans: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the configuration that the folder's name ends in, else the usual one."""
    known = plans.get("configurations")
    if not isinstance(known, dict) or not known:
        raise invalid([defect("", "plans.json has no configurations; is it of nnU-Net 2?")])
    trained = folder.resolve().name.rpartition("__")[2]
    name = next((each for each in (trained, *PREFERRED, *known) if each in known), "")
    return name, known[name]


def _network(plan: dict[str, Any], channels: Any, dataset: dict[str, Any], draft: Draft) -> None:
    """Take over the plain U-Net; other networks of nnU-Net are none of the list."""
    said = plan.get("architecture") or {}
    kind = str(said.get("network_class_name", "")).rpartition(".")[2]
    arguments = said.get("arch_kwargs") or {}
    if kind != PLAIN or not all(name in arguments for name in NAMES):
        draft.notes["/architecture"] = (
            f"The network {kind or 'of old plans'!r} is none of the list (plain_conv_unet is "
            f"nnU-Net's {PLAIN}); bring it as ONNX."
        )
        return
    if others := _others(arguments):
        draft.notes["/architecture"] = (
            f"This {PLAIN} is another than plain_conv_unet, and would answer wrongly even where"
            f" the weights fit: {'; '.join(others)}. Bring it as ONNX."
        )
        return
    scales = len(arguments["features_per_stage"])
    draft.fields["architecture"] = {
        "name": "plain_conv_unet",
        "parameters": {
            "input_channels": len(channels),
            "num_classes": _outputs(dataset),
            **{name: arguments[name] for name in NAMES},
            "n_conv_per_stage": _each(arguments["n_conv_per_stage"], scales),
            "n_conv_per_stage_decoder": _each(
                arguments.get("n_conv_per_stage_decoder", 2), scales - 1
            ),
            "conv_bias": bool(arguments.get("conv_bias", True)),
        },
    }
    draft.fields["key_map"] = {"layout": "nnunet"}


def _others(arguments: dict[str, Any]) -> list[str]:
    """Return what the plans say of norms and activations that `plain_conv_unet` has otherwise."""
    found = []
    for part, (kind, settings) in PARTS.items():
        named = str(arguments.get(part)).rpartition(".")[2]
        given = arguments.get(f"{part}_kwargs") or {}
        if not named.startswith(kind):
            found.append(f"{part} is {named!r}, there {kind}")
        found += [
            f"{name} of {part} is {given[name]!r}, there {value!r}"
            for name, value in settings.items()
            if given.get(name, value) != value
        ]
    if arguments.get("nonlin_first"):
        found.append("nonlin_first is true, there the norm comes first")
    return found


def _each(value: Any, scales: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * scales


def _input(plan: dict[str, Any], plans: dict[str, Any], channels: Any, draft: Draft) -> None:
    """Take over what can be said of the input and its steps."""
    words = list(channels.values()) if isinstance(channels, dict) else []
    patch = plan.get("patch_size") or ()
    axes = len(patch)
    normal, note = _normalization(plan, plans)
    steps = [{"name": "crop_foreground", "parameters": {}}, *normal]
    spacing = plan.get("spacing")
    if axes == len("zyx") and spacing:  # nnU-Net normalizes first, then resamples
        resample = {"spacing": spacing, "antialias": False}
        steps.append({"name": "resample", "parameters": resample})
    flat = PLANES.format(spacing=" x ".join(map(str, spacing or "?")))
    draft.notes["/inputs/0/steps"] = note + (flat if axes == len("yx") else SPLINES)
    draft.fields["inputs"] = [image(axes, "image", modalities(words), steps)]
    if len(words) > 1 and not {str(each).lower() for each in words} <= COLORS:
        draft.notes["/inputs"] = (
            f"The network takes {len(words)} channels, each of a series of its own"
            f" ({', '.join(map(str, words))}); here a volume is one series, and no request brings"
            " several. Give a network of one channel."
        )
    if axes:
        draft.fields["sliding_window"] = {
            "size": list(patch),
            "overlap": OVERLAP,
            "blend": "gaussian",
            "convention": "nnunet",
        }
        draft.notes["/sliding_window"] = MIRRORS


def _weights(folder: Path, draft: Draft) -> None:
    """Name the folds that were trained; their checkpoints are pickles and are to be converted."""
    folds = sorted(each.parent.name for each in folder.glob(f"fold_*/{CHECKPOINT}"))
    if len(folds) > 1:
        draft.fields["members"] = {"weights": [f"{each}.safetensors" for each in folds]}
    said = "; ".join(
        f"whylight models convert {each}/{CHECKPOINT} {each}.safetensors --key network_weights"
        for each in folds or ("fold_0",)
    )
    draft.notes["/files"] = (
        f"Convert the weights of every fold: {said}. List each file as the command says."
    )


def _normalization(plan: dict[str, Any], plans: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return the steps of the plans' normalization, and what to say where there are none."""
    schemes = plan.get("normalization_schemes") or []
    intensities = plans.get("foreground_intensity_properties_per_channel") or {}
    kinds, masked = set(schemes), set(plan.get("use_mask_for_norm") or [False])
    if schemes == ["CTNormalization"] and "0" in intensities:
        return _ct(intensities["0"]), ""
    if kinds == {"ZScoreNormalization"} and len(masked) == 1:
        over = "nonzero" if masked == {True} else "all"
        return [{"name": "standardize", "parameters": {"over": over}}], ""
    return [], f"Say how values are normalized; the plans say {schemes!r}. "


def _ct(seen: dict[str, float]) -> list[dict[str, Any]]:
    """Return nnU-Net's normalization of CT: clip to percentiles, then mean 0 and spread 1."""
    low, high = seen["percentile_00_5"], seen["percentile_99_5"]
    width = high - low
    return [
        {
            "name": "window",
            "parameters": {"kind": "fixed", "center": (low + high) / 2, "width": width},
        },
        {
            "name": "normalize",
            "parameters": {
                "mean": [(seen["mean"] - low) / width],
                "std": [max(seen["std"], 1e-8) / width],
            },
        },
    ]


def _labels(dataset: dict[str, Any], draft: Draft) -> None:
    """Take over the labels, in the order of their numbers."""
    labels = dataset.get("labels") or {}
    if any(isinstance(each, list) for each in labels.values()):
        draft.notes["/outputs/0/classes"] = "The labels are regions that overlap; name each output."
        draft.fields["outputs"] = [{"classes": [], "decoding": "voxel_regions"}]
        return
    ordered = sorted((int(number), name) for name, number in labels.items() if name != "ignore")
    named = classes(name for _, name in ordered)
    for each in named:
        if each["key"] == "background":
            each["not_for_use"] = "It is what is left where nothing is seen."
    draft.fields["outputs"] = [{"classes": named, "decoding": "voxel_classes"}]


def _outputs(dataset: dict[str, Any]) -> int:
    """Return how many channels the network puts out: labels, or regions without background."""
    labels = {k: v for k, v in (dataset.get("labels") or {}).items() if k != "ignore"}
    regions = any(isinstance(each, list) for each in labels.values())
    return len([name for name in labels if not (regions and name == "background")])
