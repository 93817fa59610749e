"""Whom to cite for an architecture."""

from deqzoo.models import ModelEntry

_PAPERS = {
    "pcdeq": (
        "gabor2024positive",
        "Positive Concave Deep Equilibrium Models",
        "Gabor, Mateusz and Piotrowski, Tomasz and Cavalcante, Renato L. G.",
        "International Conference on Machine Learning",
        2024,
        "2402.04029",
    ),
    "mdeq": (
        "bai2020multiscale",
        "Multiscale Deep Equilibrium Models",
        "Bai, Shaojie and Koltun, Vladlen and Kolter, J. Zico",
        "Advances in Neural Information Processing Systems",
        2020,
        "2006.08656",
    ),
    "deq": (
        "bai2019deep",
        "Deep Equilibrium Models",
        "Bai, Shaojie and Kolter, J. Zico and Koltun, Vladlen",
        "Advances in Neural Information Processing Systems",
        2019,
        "1909.01377",
    ),
    "mondeq": (
        "winston2020monotone",
        "Monotone Operator Equilibrium Networks",
        "Winston, Ezra and Kolter, J. Zico",
        "Advances in Neural Information Processing Systems",
        2020,
        "2006.08591",
    ),
    "neural_ode": (
        "chen2018neural",
        "Neural Ordinary Differential Equations",
        "Chen, Ricky T. Q. and Rubanova, Yulia and Bettencourt, Jesse and Duvenaud, David",
        "Advances in Neural Information Processing Systems",
        2018,
        "1806.07366",
    ),
}
_PAPERS |= {"mdeq_pyramid": _PAPERS["mdeq"], "deq_transformer": _PAPERS["deq"]}
"""By the file in `deqzoo.models` that holds the architecture."""


def citation(entry: ModelEntry) -> str | None:
    """Returns the BibTeX entry of the paper that an architecture is from, None where none is known here."""
    paper = _PAPERS.get(entry.build.__module__.rpartition(".")[2])
    if paper is None:
        return None
    key, title, authors, venue, year, arxiv = paper
    return (
        f"@inproceedings{{{key},\n  title = {{{title}}},\n  author = {{{authors}}},\n  booktitle = {{{venue}}},\n"
        f"  year = {{{year}}},\n  note = {{arXiv:{arxiv}}}\n}}"
    )
