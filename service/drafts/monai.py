"""MONAI's networks as its bundles name them, and those of the list that they become."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LOADING: Final = frozenset({"pretrained", "progress", "adv_prop"})
"""Arguments about weights to begin with; those of a package are loaded over them."""

RELU: Final = ("relu", "RELU", ["relu", {"inplace": True}], ["RELU", {"inplace": True}])
BATCH: Final = ("batch", "BATCH")


class Known(NamedTuple):
    """A class of MONAI's: what it is called here, and where its arguments differ."""

    name: str
    defaults: Mapping[str, Any] = {}
    """MONAI's own, where the network here has others or none."""

    fixed: Mapping[str, tuple[Any, ...]] = {}
    """Arguments that have one value here, in each way to write it; they are left out."""

    idle: frozenset[str] = frozenset()
    """Arguments that change no answer of a network with weights loaded; they are left out."""


NETWORKS: Final = {
    "ResNet": Known(
        "resnet",
        fixed={"shortcut_type": ("B",), "feed_forward": (True,), "act": RELU, "norm": BATCH},
    ),
    "DenseNet": Known("densenet", fixed={"act": RELU, "norm": BATCH}),
    "DenseNet121": Known("densenet", fixed={"act": RELU, "norm": BATCH}, idle=LOADING),
    "EfficientNetBN": Known(
        "efficientnet",
        fixed={"norm": (["batch", {"eps": 1e-3, "momentum": 0.01}],)},
        idle=LOADING,
    ),
    "SENet": Known(
        "seresnet",
        defaults={
            "inplanes": 128,
            "downsample_kernel_size": 3,
            "input_3x3": True,
            "num_classes": 1000,
        },
        idle=frozenset({"dropout_prob", "dropout_dim"}),
    ),
    "UNet": Known("unet"),
    "Unet": Known("unet"),
    "DynUNet": Known("dynunet", idle=frozenset({"dropout", "deep_supervision", "deep_supr_num"})),
    "SegResNet": Known("segresnet"),
    "ViT": Known(
        "monai_vit",
        defaults={"classification": False},
        fixed={"classification": (True,)},
        idle=frozenset({"save_attn"}),
    ),
    "SwinUNETR": Known("swin_unetr", idle=frozenset({"img_size", "use_checkpoint"})),
}
"""By class. The defaults are those of MONAI 1.6."""


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
    known = NETWORKS.get(kind)
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
    return {"name": known.name, "parameters": arguments}


def is_data(value: object) -> bool:
    """Tell whether a value holds no expression and no reference."""
    if isinstance(value, dict):
        return all(map(is_data, value.values()))
    if isinstance(value, list):
        return all(map(is_data, value))
    return not (isinstance(value, str) and re.match(r"[$@%]", value))
