"""What generating a token costs: solves that start warm, cold, and of the whole text anew.

`python -m deqzoo.benchmark.generation NAME` prints the table.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from torch import Tensor

from deqzoo.benchmark.machine import device_name
from deqzoo.errors import StructureError
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.generation import Anew, Decoder, Sampler
from deqzoo.models.vocabulary import vocabulary_from
from deqzoo.nn import observe_equilibria
from deqzoo.zoo import create_model
from deqzoo.zoo.loading import load_network


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one way of generating costs for each token.

    Attributes:
        way: "warm", "cold" or "anew".
        evals: evaluations of the cell, mean.
        positions: positions of the text that they evaluate, mean: evaluations times the length of the sequence.
        milliseconds: median.
        agreement: share of tokens that this way would have chosen, given the same text.

    """

    way: str
    evals: float
    positions: float
    milliseconds: float
    agreement: float


@torch.no_grad()
def compare(net: DEQTransformer, prompt: Tensor, *, num_tokens: int, seed: int = 0) -> list[Row]:
    """Returns a row for each way, from one run in which they take turns at every token of the same text.

    Args:
        net: the language model, in eval mode.
        prompt: (B, T) int64.
        num_tokens: to generate, after one that is not counted.
        seed: of the sampled text.

    """
    ways = {"warm": Decoder(net, prompt), "cold": Decoder(net, prompt, warm=False), "anew": Anew(net, prompt)}
    evals: dict[str, list[int]] = {way: [] for way in ways}
    positions: dict[str, list[int]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    agreed: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(num_tokens + 1):
        # Each chooses with random numbers of its own that are the same for all.
        chosen = {
            way: Sampler(generator=torch.Generator(prompt.device).manual_seed(seed + i))(decoder.logits)
            for way, decoder in ways.items()
        }
        token = chosen["warm"]
        for way, decoder in ways.items():
            agreed[way].append(float((chosen[way] == token).double().mean()))
            with observe_equilibria(net) as seen:
                start = time.perf_counter()
                decoder.append(token)
                _ = decoder.logits.sum().item()  # waits for the device
                seconds[way].append(time.perf_counter() - start)
            solution = seen.solutions[0][1]
            assert isinstance(solution.value, Tensor)
            evals[way].append(solution.stats.num_evals)
            positions[way].append(solution.stats.num_evals * solution.value.shape[1])
    return [
        Row(
            way=way,
            evals=statistics.fmean(evals[way][1:]),
            positions=statistics.fmean(positions[way][1:]),
            milliseconds=1e3 * statistics.median(seconds[way][1:]),
            agreement=statistics.fmean(agreed[way]),
        )
        for way in ways
    ]


def table(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table, with ratios to solving anew, and of warm to cold."""
    anew = next(row for row in rows if row.way == "anew")
    lines = ["| way | evaluations | positions | ms | of anew | same token |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.way} | {row.evals:.1f} | {row.positions:.0f} | {row.milliseconds:.2f} | "
        f"{row.milliseconds / anew.milliseconds:.3f} | {row.agreement:.1%} |"
        for row in rows
    ]
    warm, cold = (next(row for row in rows if row.way == way) for way in ("warm", "cold"))
    lines.append("")
    lines.append(
        f"Warm against cold: {warm.evals / cold.evals:.2f} of the evaluations, "
        f"{warm.milliseconds / cold.milliseconds:.2f} of the time."
    )
    return "\n".join(lines)


def main(
    name: Annotated[str, typer.Argument(help="A language model: whatever `deqzoo.load` takes.")],
    prompt: Annotated[str, typer.Option(help="Text to begin with.")] = "\n",
    tokens: Annotated[int, typer.Option(help="To generate.")] = 200,
    batch: Annotated[int, typer.Option(help="Texts at once.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the text.")] = 0,
    untrained: Annotated[bool, typer.Option(help="Take fresh weights instead of published ones.")] = False,
) -> None:
    """Evaluations and time per generated token, of solves that start warm, cold, and of the whole text anew."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    net = create_model(name) if untrained else load_network(name)
    if not isinstance(net, DEQTransformer):
        raise StructureError(
            f"{name} is a {type(net).__name__}. Warm and cold starts are those of equilibria that write texts: choose "
            "a deq-lm-…, see `deqzoo list 'deq-lm-*'`."
        )
    vocabulary = net.pretrained_cfg.get("vocabulary")
    start = [0] if vocabulary is None else vocabulary_from(vocabulary).encode(prompt)
    rows = compare(net.eval(), torch.tensor([start] * batch), num_tokens=tokens, seed=seed)
    where = f"{device_name(torch.device('cpu'))}, {threads} thread(s)"
    typer.echo(f"{name}, {tokens} tokens, batch {batch}, {net.equilibrium.solver}, {where}\n")
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
