"""One solve, step by step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo import create_model, load
from deqzoo.benchmark.predict import predict
from deqzoo.benchmark.trace import budgets, trace
from deqzoo.benchmark.trace_inputs import trace_image, trace_text
from deqzoo.benchmark.trace_plot import draw_trace
from deqzoo.errors import DataError, StructureError, VocabularyError
from deqzoo.models.vocabulary import CharVocabulary
from deqzoo.nn import equilibria
from deqzoo.tasks import ImageClassifier, LanguageModel

NAME = "pcdeq-mnist-linear"


@pytest.fixture(scope="module")
def model() -> Any:
    return load(NAME)


def test_a_moment_is_what_its_budget_gives(model: Any):
    own = [module.solver for module in equilibria(model.net).values()]
    image, title = trace_image(model, None)
    found = trace(model, image)
    assert [module.solver for module in equilibria(model.net).values()] == own
    assert title == "a 7 of the sample"
    assert [path.solver for path in found.paths] == ["Picard", "Anderson", "Broyden"]
    moments = found.paths[0].moments
    assert [moment.max_steps for moment in moments] == list(range(1, len(moments) + 1))
    (wanted,) = predict(load(NAME, max_steps=4), image, top_k=10)
    at_four = dict(zip(wanted.labels, wanted.probabilities, strict=True))
    assert moments[3].probabilities == pytest.approx([at_four[name] for name in found.classes])
    assert (moments[3].evals, moments[3].residual) == (wanted.evals, wanted.residual)


def test_every_way_ends_at_the_same_equilibrium(model: Any):
    found = trace(model, trace_image(model, None)[0], top_k=2)
    assert found.classes[0] == "7"
    for path in found.paths:
        assert path.outcome == "reached the tolerance"
        residuals = [moment.residual for moment in path.moments]
        assert residuals[-1] is not None and residuals[-1] <= found.rtol
        # Only the last one suffices.
        assert all(residual is None or residual > found.rtol for residual in residuals[:-1])
        assert path.moments[-1].probabilities == pytest.approx(found.paths[0].moments[-1].probabilities, abs=1e-3)
    ((name, state),) = found.states
    assert state.shape == (80,) and name in equilibria(model.net)


def test_budgets_grow():
    assert budgets(5) == [1, 2, 3, 4, 5]
    assert budgets(30)[-4:] == [22, 24, 27, 30]
    assert budgets(1) == [1]


def test_maps_are_drawn(tmp_path: Path):
    torch.manual_seed(0)
    model: Any = ImageClassifier(create_model("pcdeq-mnist-single", max_steps=3)).eval()
    found = trace(model, torch.randn(1, 1, 28, 28))
    assert all(state.ndim == 3 for _, state in found.states)
    assert "ran out of steps" in found.paths[0].outcome
    for name in ("a.svg", "b.svg"):
        draw_trace(found, tmp_path / name, title="noise")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_text().count("<image") == 8


def test_texts(tmp_path: Path):
    torch.manual_seed(0)
    net: Any = create_model("deq-lm-shakespeare-tiny", max_steps=3)
    model: Any = LanguageModel(net).eval()
    characters = [chr(33 + i) for i in range(net.vocab_size)]
    model.vocabulary = CharVocabulary.of(characters)
    tokens, title = trace_text(model, "ABC" * 20)
    assert tokens.shape == (1, 60) and title == f"what follows '…{('ABC' * 20)[-40:]}'"
    found = trace(model, tokens, top_k=3)
    assert len(found.classes) == 3 and all(len(name) == 3 for name in found.classes)
    assert found.states[0][1].shape[0] == 60
    draw_trace(found, tmp_path / "text.svg", title=title)
    with pytest.raises(VocabularyError, match="has no tokens"):
        trace_text(model, "")


def test_what_has_no_fixed_point_is_refused(tmp_path: Path):
    images = torch.zeros(1, 1, 28, 28)
    with pytest.raises(StructureError, match="SmallResNet has no equilibrium"):
        trace(ImageClassifier(create_model("resnet8-mnist")).eval(), images)
    with pytest.raises(StructureError, match="integrates an ODE"):
        trace(ImageClassifier(create_model("node-mnist")).eval(), images)
    with pytest.raises(DataError, match="missing"):
        trace_image(load(NAME), str(tmp_path / "missing.png"))
