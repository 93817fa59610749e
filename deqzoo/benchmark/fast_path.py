"""Compares ways to run one network faster: `python -m deqzoo.benchmark.fast_path mdeq-cifar-original`.

Eager against each ingredient and all of them together, interleaved in one process, so that the figures are ratios of
one run. Fixed budgets are what eager needs for its slowest image, and so go beyond the tolerance of the others.
Networks that were not trained yet have random weights.
"""

import copy
import json
import statistics
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from deqzoo.benchmark.board_files import header
from deqzoo.benchmark.machine import seconds_of
from deqzoo.benchmark.small_batches import open_net, small_batch
from deqzoo.nn import compile_cells, lay_channels_last, observe_equilibria, set_runtime
from deqzoo.zoo.rounding import counted


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What is done to a network.

    Attributes:
        fixed: a fixed budget, without questions from the host.
        channels_last: layout of weights and images.
        autocast: maps in bfloat16, states in float32.
        compile: options of `torch.compile` for maps, None for eager ones.
    """

    fixed: bool = False
    channels_last: bool = False
    autocast: bool = False
    compile: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one way took.

    Attributes:
        inference: images per second, the median of all repeats.
        training: likewise of forward, backward and optimizer step.
        inference_ratio: to eager.
        training_ratio: likewise.
        difference: of its features from eager's, relative, in the worst image.
        failure: why there are no figures.
    """

    name: str
    inference: float = 0.0
    training: float = 0.0
    inference_ratio: float = 0.0
    training_ratio: float = 0.0
    difference: float = 0.0
    failure: str | None = None


def contenders(device: torch.device, *, compiled: bool = True, **options: Any) -> dict[str, Ingredients]:
    """Returns the ways by name, eager first; `options` are those of `torch.compile`."""
    found = {
        "eager": Ingredients(),
        "fixed budget": Ingredients(fixed=True),
        "channels last": Ingredients(channels_last=True),
        "bf16 autocast": Ingredients(autocast=True),
    }
    if compiled:
        found["compiled cell"] = Ingredients(compile=options)
        found["all"] = Ingredients(fixed=True, channels_last=True, autocast=True, compile=options)
        if device.type == "cuda":
            graphs = {**options, "mode": "reduce-overhead"}
            found["all, CUDA graphs"] = Ingredients(fixed=True, channels_last=True, autocast=True, compile=graphs)
    else:
        found["all"] = Ingredients(fixed=True, channels_last=True, autocast=True)
    return found


class Contender:
    """A network with ingredients, ready to be timed."""

    def __init__(self, net: nn.Module, images: Tensor, ingredients: Ingredients, budget: int) -> None:
        self.net: Any = copy.deepcopy(net)
        self.images = images
        self.autocast = ingredients.autocast
        if ingredients.channels_last:
            lay_channels_last(self.net)
            self.images = images.contiguous(memory_format=torch.channels_last)
        if ingredients.fixed:
            set_runtime(self.net, rtol=0.0, max_steps=budget)
        if ingredients.compile is not None:
            compile_cells(self.net, **ingredients.compile)
        self.labels = torch.arange(len(images), device=images.device) % self.net.num_classes
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.0)

    def infer(self) -> Tensor:
        """Returns the features of the images."""
        with torch.no_grad(), self._precision():
            return self.net.eval().forward_features(self.images)

    def train(self) -> None:
        """Takes an optimizer step, of length zero: all contenders keep their weights."""
        self.optimizer.zero_grad()
        with self._precision():
            loss = F.cross_entropy(self.net.train()(self.images), self.labels)
        loss.backward()
        self.optimizer.step()

    def _precision(self) -> Any:
        return torch.autocast(self.images.device.type, torch.bfloat16) if self.autocast else nullcontext()


def compare(
    net: Any, images: Tensor, ways: dict[str, Ingredients], *, repeats: int, progress: tqdm | None = None
) -> list[Row]:
    """Returns a row for every way to run `net` on `images` (B, C, H, W), of which the first is the measure."""
    with torch.no_grad(), observe_equilibria(net) as seen:
        net.eval()(images)
    budget = max(int(solution.stats.num_steps.max()) for _, solution in seen.solutions)
    ready: dict[str, Contender] = {}
    failures: dict[str, str] = {}
    features: dict[str, Tensor] = {}
    for name, ingredients in ways.items():
        try:
            contender = Contender(net, images, ingredients, budget)
            features[name] = contender.infer().float()
            contender.train()
            ready[name] = contender
        except Exception as error:  # whatever a compiler or a device raises: the others still count
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if progress is not None:
            progress.update()
    inference: dict[str, list[float]] = {name: [] for name in ready}
    training: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, contender in ready.items():
            inference[name].append(seconds_of(contender.infer, images.device))
            training[name].append(seconds_of(contender.train, images.device))
            if progress is not None:
                progress.update()
    first = next(iter(ways))
    if first not in ready:
        raise RuntimeError(f"{first} failed: {failures[first]}")
    rows = []
    for name in ways:
        if name in failures:
            rows.append(Row(name=name, failure=failures[name]))
            continue
        apart = (features[name] - features[first]).flatten(1).norm(dim=1) / features[first].flatten(1).norm(dim=1)
        rows.append(
            Row(
                name=name,
                inference=len(images) / statistics.median(inference[name]),
                training=len(images) / statistics.median(training[name]),
                inference_ratio=statistics.median(inference[first]) / statistics.median(inference[name]),
                training_ratio=statistics.median(training[first]) / statistics.median(training[name]),
                difference=float(apart.max()),
            )
        )
    return rows


def fast_path_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the figures, each a `Row` as a mapping, as a Markdown table."""
    lines = ["| | inference, images/s | ratio | training, images/s | ratio | difference |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["failure"] is not None:
            lines.append(f"| {row['name']} | failed | | failed | | {row['failure']} |")
            continue
        lines.append(
            f"| {row['name']} | {row['inference']:.4g} | {row['inference_ratio']:.2f} | {row['training']:.4g} | "
            f"{row['training_ratio']:.2f} | {row['difference']:.1e} |"
        )
    return "\n".join(lines)


def fast_path_title(header: Mapping[str, Any]) -> str:
    """Returns what was measured, and by what."""
    threads = f", {counted(header['num_threads'], 'thread')}" if header["kind"] == "cpu" else ""
    return (
        f"{header['model']}, {header['weights']} weights, {header['data']}; {header['device']}{threads}, "
        f"torch {header['torch_version']}. Medians of {counted(header['repeats'], 'round')} in which all "
        "took turns."
    )


def main(
    name: Annotated[str, typer.Argument(help="A model of images.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 32,
    size: Annotated[int | None, typer.Option(min=1, help="Of the images, if other than the model's.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Budget of the solver.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats; medians are shown.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    compiled: Annotated[bool, typer.Option(help="Whether to compile, which takes minutes on a CPU.")] = True,
    output: Annotated[Path | None, typer.Option(help="Also write all rows to this JSON file.")] = None,
) -> None:
    """Training and inference throughput of eager against each ingredient of the fast path."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    where = torch.device(device)
    net, weights = open_net(name)
    set_runtime(net.to(where), max_steps=max_steps)
    images = small_batch(net, batch_size)
    if size is not None:
        images = torch.randn(*images.shape[:2], size, size)
    ways = contenders(where, compiled=compiled)
    with warnings.catch_warnings(), tqdm(total=len(ways) * (1 + repeats), desc="fast path", unit="run") as progress:
        warnings.simplefilter("ignore")
        rows = compare(net, images.to(where), ways, repeats=repeats, progress=progress)
    told = header(f"batches of {len(images)}", where, quick=False)
    told |= {"model": name, "weights": weights, "repeats": repeats}
    plain = [asdict(row) for row in rows]
    typer.echo(f"{fast_path_title(told)}\n\n{fast_path_markdown(plain)}")
    if output is not None:
        output.write_text(json.dumps({"header": told, "rows": plain}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
