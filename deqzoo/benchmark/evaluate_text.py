"""How well a language model predicts a text, what its equilibria cost, and whether they were found."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deqzoo.benchmark.evaluate import Flat, budget, circumstances
from deqzoo.benchmark.machine import Stopwatch
from deqzoo.benchmark.tally import SolveTally, number
from deqzoo.data import EvalBatches, EveryToken, Streams, TextBatch, TextData
from deqzoo.data.text_files import Part
from deqzoo.errors import UnconvergedWarning, VocabularyError
from deqzoo.nn import observe_equilibria, runtime_kept, set_runtime
from deqzoo.nn.observe import Observed


@dataclass(frozen=True, kw_only=True)
class TextEvaluation:
    """Figures of one model on one text. What was not measured, or is not a number, is None.

    Attributes:
        data: the text.
        split: the part of it: "train", "val", "test" or "all".
        level: what a token is: "char", "word" or "bpe". Losses per token and perplexities of different levels cannot
            be compared; bits per character can.
        num_tokens: that were scored: all but the first, which follows nothing.
        num_chars: that these stand for in the text as it is written.
        loss: mean negative log-likelihood in nats per token.
        perplexity: exp(loss).
        bits_per_char: the same surprise in bits per character.
        context: tokens of a window, the most that a prediction sees but for `memory`.
        stride: tokens between windows; below `context`, windows overlap and predictions see more.
        memory: positions that are remembered from before.
        num_parameters: of the network.
        converged: share of scored positions whose own relative residual is within the tolerance, from 0 to 1; None
            with fixed budgets, which have none.
        num_windows: that were solved, each as one.
        num_max_steps: windows that ran out of steps, or spent a fixed budget.
        num_stalled: windows whose residual stopped improving.
        num_nonfinite: windows that met NaN or inf.
        evals_mean: evaluations of f per scored token.
        evals_p95: 95th percentile over windows.
        evals_max: the most over windows.
        residual_max: the worst relative residual of a window.
        tokens_per_second: scored, by the network alone; after one warm-up.
        device: where it ran.
        dtype: of the parameters.
        batch_size: most windows at once.
        num_threads: of the CPU.
        solver: of the equilibria.
        max_steps: budget of each.
        rtol: tolerance of each.
        torch_version: that it ran with.
    """

    data: str
    split: str
    level: str
    num_tokens: int
    num_chars: int
    loss: float | None
    perplexity: float | None
    bits_per_char: float | None
    context: int
    stride: int
    memory: int
    num_parameters: int
    converged: float | None
    num_windows: int
    num_max_steps: int
    num_stalled: int
    num_nonfinite: int
    evals_mean: float | None
    evals_p95: float | None
    evals_max: int | None
    residual_max: float | None
    tokens_per_second: float
    device: str
    dtype: str
    batch_size: int
    num_threads: int
    solver: str | None
    max_steps: int | None
    rtol: float | None
    torch_version: str

    def as_dict(self) -> Flat:
        """Returns the figures as one flat object of JSON."""
        return asdict(self)


def evaluate_text(
    model: Any,
    data: TextData,
    *,
    split: Part,
    stride: int | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    progress: bool = False,
) -> TextEvaluation:
    """Scores every token of a part of `data` that has one before it, exactly once, and returns the figures.

    A network without memory reads windows of its context. They do not overlap unless `stride` says so; the loss
    depends on it, and on the windows' places alone. A network with memory reads the text in `batch_size` rows side by
    side, each from its beginning to its end; at the beginning of a row it remembers nothing. Sums are in float64.
    The model is moved to `device` and put into eval mode.

    Args:
        model: a `LanguageModel`, as `deqzoo.load` returns it.
        data: that reads with the vocabulary of the model.
        split: the part of it.
        stride: tokens between windows, from 1 to the context; None for the context.
        device: where to run.
        batch_size: most windows at once, or rows.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        DataError: if the text cannot be read.
        VocabularyError: for what no token stands for, or for a vocabulary that is not the model's.
        ValueError: for a stride beyond the context, or for a network with memory.
    """
    device = torch.device(device)
    net: Any = model.net
    difference = data.vocabulary.difference(model.vocabulary)
    if difference:
        raise VocabularyError(
            f"The vocabulary of {data.title} is not that of the model: {difference}. A model reads with its own: open "
            "the text with vocabulary=model.vocabulary."
        )
    text, memory = data.text_set(split), int(net.config.memory)
    if memory and stride not in (None, net.context):
        raise ValueError(f"stride = {stride} for a network with memory. It reads every token once: leave it out.")
    windows = (
        Streams(text, net.context, num_rows=batch_size) if memory else EveryToken(text, net.context, stride=stride)
    )
    model = model.to(device).eval()
    tally = _Tally()
    with torch.no_grad(), warnings.catch_warnings(), observe_equilibria(net) as seen:
        warnings.simplefilter("ignore", UnconvergedWarning)
        first = _on(windows.batch(torch.zeros(1, dtype=torch.int64), None), device)
        net.score(first.tokens, first.targets)
        remembered, watch = None, Stopwatch(device)
        bar = tqdm(total=text.num_targets, desc="scoring", unit="token", disable=None if progress else True)
        for batch in EvalBatches(windows, batch_size=1 if memory else batch_size):
            batch = _on(batch, device)
            seen.clear()
            before = remembered if batch.goes_on else None
            with watch:
                losses, remembered = net.score(batch.tokens, batch.targets, before)
            tally.add(losses, batch, seen)
            if seen.solutions:
                tally.positions.append(net.residual(batch.tokens, seen.solutions[-1][1].value, before)[batch.scored])
            bar.update(int(batch.scored.sum()))
        bar.close()
    spent = budget(net)
    return TextEvaluation(
        data=data.title,
        split=split,
        level=data.vocabulary.level,
        num_chars=text.num_chars,
        context=net.context,
        stride=net.context if memory else windows.stride,  # pyright: ignore[reportAttributeAccessIssue]
        memory=memory,
        tokens_per_second=text.num_targets / watch.seconds,
        batch_size=batch_size,
        **circumstances(net, device),
        **tally.figures(text.chars_per_token, spent["rtol"]),
        **spent,
    )


def loss_over_budgets(
    model: Any, data: TextData, *, split: Part, evals: int, **options: Any
) -> list[dict[str, float | int | None]]:
    """Returns the loss with once, twice and four times as many evaluations, all of them spent in every window.

    Where it does not change, what is measured is the equilibrium, and not where a solve happened to stop.

    Args:
        model: as in `evaluate_text`; its solvers are as before afterwards.
        data: likewise.
        split: likewise.
        evals: the evaluations that are once.
        **options: of `evaluate_text`.
    """
    net: Any = model.net
    points: list[dict[str, float | int | None]] = []
    with runtime_kept(net):
        for times in (1, 2, 4):
            set_runtime(net, max_steps=times * evals, rtol=0.0)
            found = evaluate_text(model, data, split=split, **options)
            points.append({"evals": times * evals, "loss": found.loss, "residual_max": found.residual_max})
    return points


class _Tally:
    """Gathers what the batches of a text give."""

    def __init__(self) -> None:
        self.positions: list[Tensor] = []
        self._nats = 0.0
        self._num_tokens = 0
        self._solves = SolveTally()
        self._evals = 0

    def add(self, losses: Tensor, batch: TextBatch, seen: Observed) -> None:
        """Adds a batch: losses (B, T) in nats and the solves that gave them."""
        self._nats += float(losses[batch.scored].double().sum())
        self._num_tokens += int(batch.scored.sum())
        self._solves.add(seen)
        if seen.solutions:
            self._evals += int(seen.num_steps.sum()) * batch.tokens.shape[1]

    def figures(self, chars_per_token: float, rtol: float | None) -> dict[str, Any]:
        """Returns the fields of a `TextEvaluation` that are sums over the text."""
        loss = self._nats / self._num_tokens
        return {
            "num_tokens": self._num_tokens,
            "loss": number(loss),
            "perplexity": number(math.exp(min(loss, 700.0))),
            "bits_per_char": number(loss / math.log(2) / chars_per_token),
            "num_windows": self._solves.num_solved,
            **self._of_solves(rtol),
        }

    def _of_solves(self, rtol: float | None) -> dict[str, Any]:
        figures = self._solves.figures()
        if self._solves.num_solved:
            figures["evals_mean"] = self._evals / self._num_tokens
        if figures["converged"] is not None and rtol is not None:
            figures["converged"] = float((torch.cat(self.positions) <= rtol).double().mean())
        return figures


def _on(batch: TextBatch, device: torch.device) -> TextBatch:
    return batch._replace(
        tokens=batch.tokens.to(device), targets=batch.targets.to(device), scored=batch.scored.to(device)
    )
