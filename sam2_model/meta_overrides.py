"""`hydra_overrides_extra` of Meta's builders, without hydra: what they ask for, as options.

An override that names something we have becomes that option; one that says what is so
anyway is taken; every other one is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sam2_model.configs import ModelConfig
from sam2_model.meta_settings import CONFIG_FIELDS, SETTINGS, setting
from sam2_model.video_predictor import PredictorOptions

_OVERRIDE = re.compile(r"\+{0,2}model\.([A-Za-z_][\w.]*)\s*=(.*)", re.DOTALL)

_STABILITY = "sam_mask_decoder_extra_args.dynamic_multimask_via_stability"
_OPTIONS: Mapping[str, str] = {
    _STABILITY: "dynamic_multimask_via_stability",
    **{
        option.name: option.name
        for option in dataclasses.fields(PredictorOptions)
        if option.name != "dynamic_multimask_via_stability"
    },
}
"""Overrides -> fields of `PredictorOptions`."""

_OUR_CLASSES = (
    "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "sam2.modeling.sam2_base.SAM2Base",
)
_COMPILED_CLASS = "sam2.sam2_video_predictor.SAM2VideoPredictorVOS"
_ATTENTION_GRIDS = tuple(
    f"memory_attention.layer.{attention}_attention.feat_sizes" for attention in ("self", "cross")
)


@dataclass
class Overrides:
    """What the overrides of one call ask for."""

    options: dict[str, bool | int | None] = field(default_factory=dict)
    """Fields of `PredictorOptions`."""
    config_changes: dict[str, bool | int | float] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    is_compiled: bool = False
    """Meta's compiled predictor or encoder, which answers the same in less time."""


def read_overrides(overrides: Sequence[str], config: ModelConfig) -> Overrides:
    """Hydra overrides as what they mean here; of two for one setting the later counts.

    Args:
        overrides: `++model.NAME=VALUE`, as Meta's builders take them.
        config: the model's own.

    Raises:
        ValueError: no list of strings, not of that form, a name that nothing here goes by,
            a value of the wrong type, or another value than the one there is.
    """
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        raise ValueError(
            f"hydra_overrides_extra={overrides!r} must be a list of '++model.NAME=VALUE'; "
            "apply_postprocessing stands after it, as in Meta's builder: give it by name"
        )
    read = Overrides()
    grids = []
    for override in overrides:
        name, value = _name_and_value(override)
        if name in _OPTIONS:
            option = _OPTIONS[name]
            read.options[option] = _as_type_of(getattr(PredictorOptions(), option), value, override)
        elif name in CONFIG_FIELDS:
            now = setting(config, name)
            read.config_changes[CONFIG_FIELDS[name]] = _as_type_of(now, value, override)
        elif name == "compile_image_encoder":
            read.is_compiled = _as_type_of(False, value, override) or read.is_compiled
        elif name == "_target_":
            read.is_compiled = _is_compiled_class(value, override) or read.is_compiled
        elif name in _ATTENTION_GRIDS:
            grids.append((value, override))
        else:
            _check_is_so_anyway(config, name, value, override)
    cells = read.config_changes.get("image_size", config.image_size) // config.backbone_stride
    for value, override in grids:
        if value != [cells, cells]:
            raise _refused(override, f"the grid is image_size / 16: [{cells}, {cells}]")
    return read


def _name_and_value(override: str) -> tuple[str, object]:
    match = _OVERRIDE.fullmatch(override.strip()) if isinstance(override, str) else None
    if match is None:
        raise _refused(
            override, "must be '++model.NAME=VALUE'; there is no hydra here to do anything else"
        )
    name, text = match[1], match[2].strip()
    if text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    try:
        return name, json.loads(text, parse_constant=str)
    except ValueError:
        return name, text.strip("'\"")


def _as_type_of(example: object, value: object, override: str):
    """The value, if it is of the example's type; an example of None stands for a count or none."""
    if example is None:
        types, what = (int, type(None)), "a whole number or null"
    elif isinstance(example, bool):
        types, what = (bool,), "true or false"
    elif isinstance(example, float):
        types, what = (int, float), "a number"
    else:
        types, what = (int,), "a whole number"
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _refused(override, f"the value must be {what}")
    return value


def _is_compiled_class(value: object, override: str) -> bool:
    if value not in (*_OUR_CLASSES, _COMPILED_CLASS):
        raise _refused(override, "another class cannot be put in the predictor's place")
    return value == _COMPILED_CLASS


def _check_is_so_anyway(config: ModelConfig, name: str, value: object, override: str) -> None:
    if name not in SETTINGS:
        raise _refused(
            override,
            f"there is no setting {name!r} here; there are "
            f"{', '.join(sorted({*_OPTIONS, *CONFIG_FIELDS}))}, and a ModelConfig in place of "
            "the model's name",
        )
    now = setting(config, name)
    if isinstance(value, bool) != isinstance(now, bool) or value != now:
        raise _refused(override, f"it is {str(now).lower()} in this model and cannot be set")


def _refused(override: object, why: str) -> ValueError:
    return ValueError(f"hydra_overrides_extra: {override!r}: {why}")
