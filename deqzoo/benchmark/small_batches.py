"""The networks, and the small batches, that solvers, adjoints and ways to run faster are compared on."""

from typing import Any, Literal

import torch
from torch import Tensor

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.data import EmbeddedSample, EmbeddedText, embedded_samples
from deqzoo.errors import DataError
from deqzoo.models.vocabulary import vocabulary_from
from deqzoo.zoo import create_model
from deqzoo.zoo.loading import load_network
from deqzoo.zoo.manifest import published
from deqzoo.zoo.stored import HUB_PREFIX, locate


def open_net(name: str) -> tuple[Any, Literal["trained", "random"]]:
    """Returns a network in eval mode, and where its weights come from.

    Args:
        name: what `deqzoo.load` takes, or the name of a model without weights, which gets random ones.
    """
    known = None if name.startswith(HUB_PREFIX) else locate(name)[0]
    if known is not None and published(known) is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create_model(known).eval(), "random"
    return load_network(name).eval(), "trained"


def small_batch(net: Any, batch_size: int) -> Tensor:
    """Returns inputs for a network: images or text of the sample in the package, noise where there is none.

    Args:
        net: with its `pretrained_cfg`.
        batch_size: samples; of a text, of at most 32 tokens each.
    """
    draw = torch.Generator().manual_seed(0)
    if "input_size" not in net.pretrained_cfg:
        return _tokens(net, (batch_size, min(32, net.context)), draw)
    spec = input_spec(net)
    if spec.dataset in embedded_samples():
        return prepared(EmbeddedSample(spec.dataset).image_set("test").images[:batch_size], spec)
    return torch.randn(batch_size, spec.channels, *spec.size, generator=draw)


def _tokens(net: Any, shape: tuple[int, int], draw: torch.Generator) -> Tensor:
    noise = torch.randint(net.vocab_size, shape, generator=draw)
    vocabulary = net.pretrained_cfg.get("vocabulary")
    if vocabulary is None:
        return noise
    try:
        text = EmbeddedText(net.pretrained_cfg["tag"]).text("all")
    except DataError:  # the licences of other texts keep them out of the package
        return noise
    ids = torch.tensor(vocabulary_from(vocabulary).encode(text[:10_000]))
    return ids.repeat(-(-noise.numel() // len(ids)))[: noise.numel()].view(shape)
