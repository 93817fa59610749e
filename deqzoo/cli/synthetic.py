"""`deqzoo fit --synthetic true`: a recipe on data of the right shape, wherever its own data is not."""

import re
from typing import Any

from deqzoo.data.noise_images import NoiseImages
from deqzoo.data.noise_text import NoiseText
from deqzoo.errors import DataError, listed
from deqzoo.models import entry
from deqzoo.models.input_spec import INPUT_SPECS
from deqzoo.models.text_spec import TEXT_SPECS

OPTION = "--synthetic"
_ALIAS = "--data.synthetic"
_AMOUNT = re.compile(r"--data\.(init_args\.)?(num_images|num_tokens)(=|$)")


def plain(argv: list[str]) -> list[str]:
    """Returns the arguments with --data.synthetic, which is how one thinks of it, as the option that there is."""
    return [OPTION + arg.removeprefix(_ALIAS) if arg.split("=")[0] == _ALIAS else arg for arg in argv]


def apart(args: list[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments without those that only noise takes, and those: how many images or tokens of it."""
    rest, amounts = [], []
    for index, arg in enumerate(args):
        follows = index > 0 and _AMOUNT.fullmatch(args[index - 1]) is not None
        (amounts if _AMOUNT.match(arg) or follows else rest).append(arg)
    return rest, amounts


def replacement(config: Any) -> list[str]:
    """Returns the options that replace the data of a configuration by noise; what fits both is kept.

    Args:
        config: of a verb, parsed.

    Raises:
        DataError: if the recipe does not say for which data set its network is.
    """
    like = _dataset(config)
    if like in INPUT_SPECS:
        data: type = NoiseImages
    elif like in TEXT_SPECS:
        data = NoiseText
    else:
        known = listed([*INPUT_SPECS, *TEXT_SPECS], 12)
        raise DataError(
            f"{OPTION} needs to know what the data looks like, and found {like!r}. A recipe whose network comes from "
            f"deqzoo.create_model, or whose data has `like`, tells: use one of {known}."
        )
    return [f"--data={data.__module__}.{data.__name__}", f"--data.init_args.like={like}"]


def _dataset(config: Any) -> str | None:
    data = config.data.get("init_args") or {}
    if data.get("like") is not None:
        return data["like"]
    net = (config.model.get("init_args") or {}).get("net") or {}
    name = (net.get("init_args") or {}).get("name")
    return entry(name).dataset if name is not None else None
