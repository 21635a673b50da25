from __future__ import annotations

import pytest

from tfscale.data.transforms import AUGMENTS, Cutmix, Erase, Flip, Mixup, PadCrop, RandAugment, ResizedCrop, transforms
from tfscale.errors import UsageError


def test_names_lists_dicts_and_objects_say_the_same():
    assert transforms("imagenet") == transforms(["flip", "resized_crop"]) == (ResizedCrop(0.08), Flip())
    assert transforms("none") == transforms([]) == transforms(None) == ()
    given = [{"mixup": {"alpha": 1}}, "cifar", {"rand_augment": None, "erase": {"share": 0.5, "fill": 0}}]
    wanted = (PadCrop(4), RandAugment(), Flip(), Erase(share=0.5, fill=0), Mixup(alpha=1.0))
    assert transforms(given) == wanted == transforms(list(wanted)[::-1])  # in one order, however they are listed
    assert all(isinstance(transforms(name), tuple) for name in AUGMENTS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("photo", "unknown augmentation 'photo'; did you mean 'photos'"),
        (["imagenet", "rand_augmnt"], "did you mean 'rand_augment'"),
        (["photos", "flip"], "flip is there twice"),
        ([{"mixup": {"alfa": 1}}], "mixup has no 'alfa'; did you mean 'alpha'"),
        ([{"mixup": {"alpha": 0}}], "alpha is 0.01"),
        ([{"mixup": {"alpha": float("nan")}}], "nan is no number"),
        ([{"mixup": 0.2}], "mixup takes {alpha: 0.2, share: 1.0}, not 0.2"),
        ([{"mixup": {"alpha": "much"}}], "'much' is no number"),
        ([{"rand_augment": {"layers": 1.5}}], "1.5 is no whole number"),
        ([{"rand_augment": {"magnitude": 31}}], "magnitude is 0 to 30"),
        ([{"resized_crop": {"least_area": 8}}], "least_area"),
        ([{"erase": {"least_area": 0.5}}], "most_area"),
        ([{"colour": {"hue": 1}}], "hue is 0 to 0.5"),
        ([{"jitter": {"zoom": 1}}], "zoom"),
        ([{"pad_crop": {"pad": 0}}], "pad"),
        ([Cutmix(share=2)], "share"),
        (7, "7 is no augmentation"),
        ([["flip"]], "is no augmentation"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(given, says):
    with pytest.raises(UsageError) as error:
        transforms(given)
    assert says in error.value.what and error.value.where.startswith("task.augment") and error.value.fix
