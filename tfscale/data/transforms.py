"""Which transforms of pictures there are, and how a configuration names them; without TensorFlow.

Owns their parameters and what is refused of them. augment.py, rand_augment.py and mixing.py do them,
in the order in which they stand here, in whatever order they are listed:

    transforms("imagenet")                                      # one of AUGMENTS
    transforms(["imagenet", {"rand_augment": {"magnitude": 7}}, "erase", {"mixup": {"alpha": 0.2}}])
    transforms([ResizedCrop(least_area=0.2), Flip(), Cutmix()])
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.errors import UsageError, nearest

AUGMENTS = ("none", "digits", "cifar", "photos", "imagenet")  # names of several transforms together


@dataclass(frozen=True)
class Transform:
    """Base of all; its fields are numbers, or true or false, with defaults."""

    def wrong(self) -> str:
        """What is wrong with the numbers; "" where nothing is."""
        return ""


@dataclass(frozen=True)
class ResizedCrop(Transform):
    """Inception's crop (Szegedy et al., 2015): a share of the area from `least_area` to 1, of an aspect ratio from 3/4
    to 4/3, resized to the model's input. In evaluation the middle 87.5 % of the shorter side is seen. With `scaled`
    both are decoded at a half, a quarter or an eighth where they are as many times the model's size."""

    least_area: float = 0.08
    scaled: bool = False

    def wrong(self) -> str:
        return "" if 0 < self.least_area <= 1 else "least_area is a share of the area, such as 0.08"


@dataclass(frozen=True)
class PadCrop(Transform):
    """Pads by `pad` zeros on every side and crops at random to the former size (He et al., 2015)."""

    pad: int = 4

    def wrong(self) -> str:
        return "" if self.pad >= 1 else "pad is a number of pixels, 1 or more"


@dataclass(frozen=True)
class Jitter(Transform):
    """Shifts (pixels), rotates (radians) and zooms (share) by up to these amounts, in one resampling."""

    shift: float = 2.0
    rotate: float = 0.2
    zoom: float = 0.1

    def wrong(self) -> str:
        good = self.shift >= 0 and self.rotate >= 0 and 0 <= self.zoom < 1
        return "" if good else "shift and rotate are 0 or more, and zoom less than 1"


@dataclass(frozen=True)
class RandAugment(Transform):
    """RandAugment (Cubuk et al., 2020): `layers` of 14 operations, drawn for each picture, at `magnitude` of 30."""

    layers: int = 2
    magnitude: float = 9.0

    def wrong(self) -> str:
        good = 1 <= self.layers <= 14 and 0 <= self.magnitude <= 30
        return "" if good else "layers are 1 to 14, and the magnitude is 0 to 30"


@dataclass(frozen=True)
class Flip(Transform):
    """Mirrors half of the pictures, from left to right."""


@dataclass(frozen=True)
class Colour(Transform):
    """Multiplies brightness, contrast and saturation by factors from 1 - x to 1 + x, and turns the hue by up to `hue`
    of a full circle to either side; of grey pictures brightness and contrast alone."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def wrong(self) -> str:
        good = all(0 <= x <= 1 for x in (self.brightness, self.contrast, self.saturation)) and 0 <= self.hue <= 0.5
        return "" if good else "brightness, contrast and saturation are 0 to 1, and hue is 0 to 0.5"


@dataclass(frozen=True)
class Erase(Transform):
    """Random erasing (Zhong et al., 2017): a rectangle of `least_area` to `most_area` of a `share` of the pictures,
    with an aspect ratio from 0.3 to 3.3, becomes `fill`."""

    share: float = 0.25
    least_area: float = 0.02
    most_area: float = 0.33
    fill: int = 128

    def wrong(self) -> str:
        if not (0 < self.least_area <= self.most_area < 1):
            return "least_area and most_area are shares of the area, the first not above the second"
        return "" if 0 <= self.share <= 1 and 0 <= self.fill <= 255 else "share is 0 to 1, and fill 0 to 255"


@dataclass(frozen=True)
class Mixup(Transform):
    """mixup (Zhang et al., 2017): a `share` of the pictures is blended with its neighbour in the step, and its label
    too, by a share drawn from Beta(alpha, alpha)."""

    alpha: float = 0.2
    share: float = 1.0

    def wrong(self) -> str:
        return _wrong_mix(self.alpha, self.share)


@dataclass(frozen=True)
class Cutmix(Transform):
    """CutMix (Yun et al., 2019): a `share` of the pictures has a rectangle of its neighbour in the step, and as much of
    its label. Beside mixup each is drawn for half of the pictures."""

    alpha: float = 1.0
    share: float = 1.0

    def wrong(self) -> str:
        return _wrong_mix(self.alpha, self.share)


def _wrong_mix(alpha: float, share: float) -> str:
    return "" if 0.01 <= alpha <= 1000 and 0 <= share <= 1 else "alpha is 0.01 to 1000, and share 0 to 1"


_BY_NAME: dict[str, type[Transform]] = {
    "resized_crop": ResizedCrop,
    "pad_crop": PadCrop,
    "jitter": Jitter,
    "rand_augment": RandAugment,
    "flip": Flip,
    "colour": Colour,
    "erase": Erase,
    "mixup": Mixup,
    "cutmix": Cutmix,
}
_NAMES = {cls: name for name, cls in _BY_NAME.items()}
_TOGETHER: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "digits": (Jitter(),),
    "cifar": (PadCrop(), Flip()),
    "photos": (ResizedCrop(0.35), Flip()),
    "imagenet": (ResizedCrop(), Flip()),
}


def transforms(given: Any, *, where: str = "task.augment") -> tuple[Transform, ...]:
    """The transforms that are meant, in the order in which they are applied.

    Args:
        given: a name of AUGMENTS or of one transform, a Transform, {name: {parameter: number}}, or a list of those.
        where: the key that they come from.

    Raises:
        UsageError: an unknown name or parameter, a number that makes no sense, or a transform that is there twice.
    """
    found: dict[type[Transform], Transform] = {}
    for one in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        for step in _meant(one, where):
            if type(step) in found:
                name, holding = _NAMES[type(step)], [k for k, v in _TOGETHER.items() if type(step) in map(type, v)]
                also = f"; {' and '.join(holding)} already hold it" if holding else ""
                raise UsageError(f"{name} is there twice", where=where, fix=f"name it once{also}")
            found[type(step)] = step
    return tuple(found[cls] for cls in _BY_NAME.values() if cls in found)


def mask_transforms(given: Any) -> tuple[Transform, ...]:
    """As `transforms`, of those that masks can follow (augment_masks.py does them); raises UsageError."""
    steps = transforms(given)
    for one in steps:
        if not isinstance(one, ResizedCrop | Jitter | Flip | Colour):
            raise UsageError(
                f"a mask can't follow {type(one).__name__}",
                where="task.augment",
                fix="use resized_crop, jitter, flip and colour, or their names none, digits, photos and imagenet",
            )
        if isinstance(one, ResizedCrop) and one.scaled:
            raise UsageError(
                "pictures with masks are decoded whole, so that scaled: true of resized_crop would do nothing",
                where="task.augment",
                fix="leave scaled away",
            )
    return steps


def find(steps: Sequence[Transform], kind: type[Any]) -> Any:
    """The transform of this class, or None."""
    return next((one for one in steps if isinstance(one, kind)), None)


def _meant(one: Any, where: str) -> tuple[Transform, ...]:
    if one is None:
        return ()
    if isinstance(one, Transform):
        if type(one) not in _NAMES:
            raise UsageError(f"{type(one).__name__} is no transform that is known", where=where, fix=_fix())
        return (_checked(one, where),)
    if isinstance(one, str) and one in _TOGETHER:
        return _TOGETHER[one]
    named = {one: None} if isinstance(one, str) else one
    if not isinstance(named, Mapping):
        raise UsageError(f"{one!r} is no augmentation", where=where, fix=_fix())
    return tuple(_made(str(name), parameters, where) for name, parameters in named.items())


def _made(name: str, parameters: Any, where: str) -> Transform:
    if name not in _BY_NAME:
        known = (*AUGMENTS, *_BY_NAME)
        raise UsageError(f"unknown augmentation {name!r}{nearest(name, known)}", where=where, fix=_fix())
    cls, where = _BY_NAME[name], f"{where}.{name}"
    fields = {f.name: f for f in dataclasses.fields(cls)}
    takes = ", ".join(f"{n}: {f.default}" for n, f in fields.items()) or "no parameters"
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError(f"{name} takes {{{takes}}}, not {parameters!r}", where=where, fix=f"{{{name}: {{{takes}}}}}")
    values: dict[str, Any] = {}
    for key, value in (parameters or {}).items():
        if key not in fields:
            raise UsageError(
                f"{name} has no {key!r}{nearest(str(key), list(fields))}", where=where, fix=f"it takes {takes}"
            )
        whole = isinstance(fields[key].default, int)
        if isinstance(fields[key].default, bool):
            if not isinstance(value, bool):
                raise UsageError(
                    f"{value!r} is neither true nor false", where=f"{where}.{key}", fix=f"it takes {takes}"
                )
            values[str(key)] = value
            continue
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value):
            kind = "whole number" if whole else "number"
            raise UsageError(f"{value!r} is no {kind}", where=f"{where}.{key}", fix=f"it takes {takes}")
        values[str(key)] = value if whole else float(value)
    return _checked(cls(**values), where)


def _checked(step: Transform, where: str) -> Transform:
    if wrong := step.wrong():
        raise UsageError(f"{step}: {wrong}", where=where, fix="give other numbers, or leave them away for the defaults")
    return step


def _fix() -> str:
    return f"use one of {', '.join(AUGMENTS)}, or a list of {', '.join(_BY_NAME)}"
