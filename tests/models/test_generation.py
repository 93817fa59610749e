"""Generation: the same text whatever is kept and wherever solves start, and sampling that does what it says."""

import math

import pytest
import torch

from deqzoo.errors import StructureError
from deqzoo.models.generation import Decoder, Sampler, window_length
from deqzoo.nn import observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Picard

from .text_nets import VOCAB, network, texts


def generated(net, prompt, count, **options):
    return torch.stack(list(net.generate(prompt, max_new_tokens=count, **options)), dim=1)


def recomputed(net, prompt, count):
    """The likeliest continuation, each token from all scores of its whole window."""
    text = prompt
    for _ in range(count):
        window = text[:, -window_length(text.shape[1], net.context) :]
        text = torch.cat((text, net(window)[:, -1:].argmax(-1)), dim=1)
    return text[:, prompt.shape[1] :]


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("length", [1, 16])
def test_text_is_the_same_warm_cold_and_recomputed(blocks, length):
    net, prompt = network(blocks=blocks), texts(2, length)
    warm = generated(net, prompt, 26, temperature=0)
    assert warm.shape == (2, 26) and warm.dtype == torch.int64
    assert warm.unique().numel() > 2
    torch.testing.assert_close(generated(net, prompt, 26, temperature=0, warm=False), warm)
    torch.testing.assert_close(recomputed(net, prompt, 26), warm)


@pytest.mark.parametrize("warm", [True, False])
def test_scores_do_not_drift_from_those_of_the_window(warm):
    net, text = network(blocks=2, memory=4), texts(2, 30)
    with torch.no_grad():
        decoder = Decoder(net, text[:, :3], warm=warm)
        for end in range(3, 31):
            window = text[:, end - window_length(end, 16) : end]
            torch.testing.assert_close(decoder.logits, net(window)[:, -1], rtol=1e-5, atol=1e-6)
            if end < 30:
                decoder.append(text[:, end])


def test_windows_grow_to_the_context_and_start_again_from_half():
    assert [window_length(n, 6) for n in range(1, 14)] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5]
    assert [window_length(n, 1) for n in (1, 2, 3)] == [1, 1, 1]
    assert [window_length(n, 2) for n in (1, 2, 3, 4, 5)] == [1, 2, 1, 2, 1]


def test_each_new_position_is_solved_alone():
    net, prompt = network(solver=Anderson(rtol=1e-6, max_steps=50)), texts(2, 5)
    with observe_equilibria(net) as seen:
        generated(net, prompt, 12)
    lengths = [solution.value.shape[1] for _, solution in seen.solutions]
    # The last token needs no solve; the window of 16 is full after 11 more.
    assert lengths == [5] + [1] * 11
    assert seen.converged.all()


def test_warm_solves_start_from_the_position_before():
    net, prompt = network(), texts(2, 5)
    starts = []
    net.equilibrium.register_forward_pre_hook(lambda m, args, kwargs: starts.append(kwargs["z0"]), with_kwargs=True)
    with observe_equilibria(net) as seen:
        generated(net, prompt, 3)
        generated(net, prompt, 3, warm=False)
    torch.testing.assert_close(starts[1], seen.solutions[0][1].value[:, -1:], rtol=0, atol=0)
    torch.testing.assert_close(starts[2], seen.solutions[1][1].value, rtol=0, atol=0)
    assert starts[0] is None and starts[3:] == [None, None, None]


def test_seeds_decide_the_text():
    net, prompt = network(), texts(2, 5)
    runs = [generated(net, prompt, 30, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()
    state = torch.get_rng_state()
    generated(net, prompt, 5, generator=torch.Generator().manual_seed(0))
    assert (torch.get_rng_state() == state).all()


def test_dropout_is_left_out():
    net, prompt = network(dropout=0.5).train(), texts(2, 5)
    first = generated(net, prompt, 20, temperature=0)
    assert (generated(net, prompt, 20, temperature=0) == first).all()
    assert (generated(net.eval(), prompt, 20, temperature=0) == first).all()
    assert not any(p.grad_fn for p in first)


def test_adaptive_tables_generate():
    net = network(cutoffs=(5, 12), vocab_size=20)
    assert (generated(net, texts(2, 4, vocab_size=20), 10, temperature=0) < 20).all()


def test_tokens_come_as_they_are_found():
    net = network()
    set_runtime(net, solver=Picard(rtol=0, max_steps=3))
    with observe_equilibria(net) as seen:
        stream = net.generate(texts(1, 4), max_new_tokens=1000)
        next(stream), next(stream)
    assert len(seen.solutions) == 2
    assert list(net.generate(texts(1, 4), max_new_tokens=0)) == []


LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0]]).expand(4000, 4)


def frequencies(**options):
    tokens = Sampler(generator=torch.Generator().manual_seed(0), **options)(LOGITS)
    return torch.bincount(tokens, minlength=4) / len(tokens)


@pytest.mark.parametrize(
    ("options", "kept", "temperature"),
    [
        ({}, [0, 1, 2, 3], 1),
        ({"temperature": 2.0}, [0, 1, 2, 3], 2),
        ({"top_k": 2}, [1, 2], 1),
        ({"top_k": 9}, [0, 1, 2, 3], 1),
        ({"top_p": 0.7}, [1, 2], 1),  # the likeliest has 0.64
        ({"top_p": 0.5}, [1], 1),
        ({"top_p": 1.0}, [0, 1, 2, 3], 1),
        ({"top_k": 3, "top_p": 0.9, "temperature": 0.5}, [1, 2], 0.5),
        ({"temperature": 1e-30}, [1], 1),
        ({"temperature": 0}, [1], 1),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(options, kept, temperature):
    wanted = torch.zeros(4)
    wanted[kept] = (LOGITS[0, kept] / temperature).softmax(0)
    torch.testing.assert_close(frequencies(**options), wanted, rtol=0, atol=0.025)
    assert (frequencies(**options)[wanted == 0] == 0).all()


def test_equally_likely_tokens_are_cut_to_k():
    tokens = Sampler(top_k=2, generator=torch.Generator().manual_seed(0))(torch.zeros(500, 5))
    assert tokens.unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1.0.*not negative.*0 takes the likeliest"),
        ({"temperature": math.inf}, "temperature=inf.*finite"),
        ({"temperature": math.nan}, "temperature=nan.*finite"),
        ({"top_k": 0}, "top_k=0.*one token remains.*top_k=1"),
        ({"top_p": 0.0}, r"top_p=0.0.*\(0, 1\].*top_p=0.9"),
        ({"top_p": 1.5}, r"top_p=1.5.*\(0, 1\]"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1.*0 tokens or more"),
    ],
)
def test_options_that_make_no_sense_are_named_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        network().generate(texts(1, 4), **{"max_new_tokens": 3, **options})


def test_scores_that_are_not_finite_are_named():
    for bad in (math.nan, math.inf):
        logits = torch.zeros(2, VOCAB)
        logits[1, 3] = bad
        with pytest.raises(StructureError, match=r"NaN or infinite.*cannot be drawn.*weights"):
            Sampler()(logits)
