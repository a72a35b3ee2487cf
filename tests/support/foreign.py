"""Models as others publish them: a MONAI bundle, a folder of nnU-Net's."""

import json
from pathlib import Path
from typing import Any

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 1,
    "norm": "batch",
}


def write_bundle(folder: Path, network: Any = None, **about: Any) -> Path:
    """Write a bundle with the documents of one, as the specification has them."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {
        "version": "0.5.3",
        "monai_version": "1.4.0",
        "task": "Breast density classification",
        "description": "A classifier of mammograms.",
        "authors": "An academic center",
        "copyright": "Copyright (c) An academic center",
        "name": "Breast density",
        "intended_use": "This is an example, not to be used for diagnosis.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MG",
                    "num_channels": 1,
                    "spatial_shape": [64, 64],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "labels",
                    "num_channels": 2,
                    "channel_def": {"1": "Dense", "0": "Fatty"},
                }
            },
        },
        **about,
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = {"imports": ["$import os"], "network_def": network or UNET}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "models" / "model.pt").write_bytes(b"\x80\x02.")
    return folder


def write_nnunet(
    folder: Path, plan: dict[str, Any] | None = None, folds: int = 0, **arguments: Any
) -> Path:
    """Write the documents of a small nnU-Net for CT, as its version 2 writes them.

    Parameters
    ----------
    plan
        Fields of its configuration to replace.
    folds
        How many were trained; their checkpoints are empty files.
    arguments
        Arguments of its network to replace.
    """
    folder.mkdir(parents=True)
    for number in range(folds):
        (folder / f"fold_{number}").mkdir()
        (folder / f"fold_{number}" / "checkpoint_final.pth").touch()
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **arguments,
    }
    plain = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    plans = {
        "dataset_name": "Dataset009_Spleen",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "configurations": {
            "3d_fullres": {
                "patch_size": [8, 16, 16],
                "spacing": [3.0, 0.8, 0.8],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {"network_class_name": plain, "arch_kwargs": kwargs},
                **(plan or {}),
            }
        },
        "foreground_intensity_properties_per_channel": {
            "0": {"percentile_00_5": -50.0, "percentile_99_5": 150.0, "mean": 60.0, "std": 40.0}
        },
    }
    dataset = {
        "name": "Spleen",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 06/08/2018",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumor": 2, "spleen": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
