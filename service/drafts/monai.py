"""MONAI's networks as its bundles name them, and those of the list that they become."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LOADING: Final = frozenset({"pretrained", "progress", "adv_prop"})
"""Arguments about weights to begin with; those of a package are loaded over them."""

RELU: Final = ("relu", "RELU", ["relu", {"inplace": True}], ["RELU", {"inplace": True}])
BATCH: Final = ("batch", "BATCH")
AXES: Final = (1, 2, 3)


class Known(NamedTuple):
    """A class of MONAI's: what it is called here, and where its arguments differ."""

    name: str
    defaults: Mapping[str, Any] = {}
    """MONAI's own, where the network here has others or none."""

    fixed: Mapping[str, tuple[Any, ...]] = {}
    """Arguments that have one value here, in each way to write it; they are left out."""

    idle: frozenset[str] = frozenset()
    """Arguments that change no answer of a network with weights loaded; they are left out."""

    per_axis: frozenset[str] = frozenset()
    """Arguments that MONAI takes as one number for all axes, and the network here as one each."""


def _senet(**own: Any) -> Known:
    """Return what a class of squeeze and excitation is; its `own` defaults over those of all."""
    large = {"inplanes": 128, "downsample_kernel_size": 3, "input_3x3": True, "num_classes": 1000}
    idle = frozenset({"dropout_prob", "dropout_dim"})
    return Known("seresnet", defaults={**large, **own}, idle=idle | LOADING)


def _seresnet(block: str, groups: int, *layers: int) -> Known:
    small = {"inplanes": 64, "downsample_kernel_size": 1, "input_3x3": False, "reduction": 16}
    return _senet(block=block, layers=[*layers], groups=groups, **small)


def _densenet(*blocks: int) -> Known:
    """Return what a dense network is; `blocks` where its class has others than the network here."""
    return Known(
        "densenet",
        defaults={"block_config": [*blocks]} if blocks else {},
        fixed={"act": RELU, "norm": BATCH},
        idle=LOADING,
    )


def _resnet(block: str = "", *layers: int) -> Known:
    """Return what a residual network is; `block` and `layers` where its name says them."""
    return Known(
        "resnet",
        defaults={"block": block, "layers": [*layers]} if block else {},
        fixed={"shortcut_type": ("B",), "feed_forward": (True,), "act": RELU, "norm": BATCH},
        idle=LOADING,
    )


NETWORKS: Final = {
    "resnet": _resnet(),
    "resnet10": _resnet("basic", 1, 1, 1, 1),
    "resnet18": _resnet("basic", 2, 2, 2, 2),
    "resnet34": _resnet("basic", 3, 4, 6, 3),
    "resnet50": _resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _resnet("bottleneck", 3, 8, 36, 3),
    "resnet200": _resnet("bottleneck", 3, 24, 36, 3),
    "densenet": _densenet(),
    "densenet121": _densenet(),
    "densenet169": _densenet(6, 12, 32, 32),
    "densenet201": _densenet(6, 12, 48, 32),
    "densenet264": _densenet(6, 12, 64, 48),
    "efficientnetbn": Known(
        "efficientnet",
        fixed={"norm": (["batch", {"eps": 1e-3, "momentum": 0.01}],)},
        idle=LOADING,
    ),
    "senet": _senet(),
    "senet154": _senet(block="se_bottleneck", layers=[3, 8, 36, 3], groups=64, reduction=16),
    "seresnet50": _seresnet("se_resnet_bottleneck", 1, 3, 4, 6, 3),
    "seresnet101": _seresnet("se_resnet_bottleneck", 1, 3, 4, 23, 3),
    "seresnet152": _seresnet("se_resnet_bottleneck", 1, 3, 8, 36, 3),
    "seresnext50": _seresnet("se_resnetxt_bottleneck", 32, 3, 4, 6, 3),
    "seresnext101": _seresnet("se_resnetxt_bottleneck", 32, 3, 4, 23, 3),
    "unet": Known("unet"),
    "dynunet": Known("dynunet", idle=frozenset({"dropout", "deep_supervision", "deep_supr_num"})),
    "segresnet": Known("segresnet"),
    "vit": Known(
        "monai_vit",
        defaults={"classification": False, "spatial_dims": 3},
        fixed={"classification": (True,)},
        idle=frozenset({"save_attn"}),
        per_axis=frozenset({"img_size", "patch_size"}),
    ),
    "swinunetr": Known("swin_unetr", idle=frozenset({"img_size", "use_checkpoint"})),
}
"""By class or function, in small letters: MONAI's other names for one differ in case alone. The
defaults are those of MONAI 1.6."""


def choice(said: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the network that a configuration's entry is, or why it is none of the list.

    Nothing is evaluated: an entry counts if all its arguments are plain data.

    Returns
    -------
    dict or str
        Name and parameters as a manifest has them; else the end of a sentence that
        begins with the document's name, empty where the entry names no class.
    """
    target = said.get("_target_")
    if not isinstance(target, str) or not is_data(target):
        return ""
    home, _, kind = target.rpartition(".")
    known = NETWORKS.get(kind.lower())
    if known is None or (home and home.partition(".")[0] != "monai"):
        return (
            f"names {target!r}, which is none of those that are read: if the page has that network,"
            " give its name there; else bring it as ONNX."
        )
    given = {
        name: value
        for name, value in said.items()
        if not name.startswith("_") and name not in known.idle
    }
    if unread := sorted(name for name, value in given.items() if not is_data(value)):
        return (
            f"names {kind!r}, but {', '.join(unread)} by expressions or references, and none is"
            " evaluated: say them."
        )
    arguments = {**known.defaults, **given}
    for name, values in known.fixed.items():
        if (value := arguments.pop(name, values[0])) not in values:
            return (
                f"has {kind!r} with {name} {value!r} (as its default is, if it is not said);"
                f" {known.name} has {values[0]!r} alone. Bring the network as ONNX."
            )
    for name in known.per_axis & arguments.keys():
        arguments[name] = per_axis(arguments[name], arguments["spatial_dims"])
    return {"name": known.name, "parameters": arguments}


def per_axis(value: object, axes: object) -> object:
    """Return one number for all axes as one for each of `axes`; anything else as it is."""
    return [value] * axes if type(value) is int and axes in AXES else value


def is_data(value: object) -> bool:
    """Tell whether a value holds no expression and no reference."""
    if isinstance(value, dict):
        return all(map(is_data, value.values()))
    if isinstance(value, list):
        return all(map(is_data, value))
    return not (isinstance(value, str) and re.match(r"[$@%]", value))
